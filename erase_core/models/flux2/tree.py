"""The module tree of FLUX.2 under the names of Black Forest Labs' files: Flux's blocks with gated
MLPs and without biases, all of a kind modulated alike.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

from torch import nn

from ..flux1.tree import DoubleStreamBlock, LastLayer, MLPEmbedder, Modulation, SingleStreamBlock
from .config import Flux2Config


class Flux2(nn.Module):
    """A FLUX.2 transformer of any size; parameters carry BFL names (``double_blocks.0...``)."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        self.config = config
        hidden, singles = config.hidden_size, config.depth_single_blocks
        self.img_in = nn.Linear(config.in_channels, hidden, bias=False)
        self.time_in = MLPEmbedder(256, hidden, bias=False)
        if config.guidance_embed:
            self.guidance_in = MLPEmbedder(256, hidden, bias=False)
        self.txt_in = nn.Linear(config.context_in_dim, hidden, bias=False)
        self.double_stream_modulation_img = Modulation(hidden, 6, bias=False)
        self.double_stream_modulation_txt = Modulation(hidden, 6, bias=False)
        self.single_stream_modulation = Modulation(hidden, 3, bias=False)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(config, modulated=False) for _ in range(config.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(config, modulated=False) for _ in range(singles)
        )
        self.final_layer = LastLayer(hidden, config.in_channels, bias=False)
