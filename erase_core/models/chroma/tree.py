"""The module tree of Chroma under the names of its files: Flux's blocks without modulation of their
own, and one network that modulates all of them.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

from torch import nn

from ..flux1.tree import DoubleStreamBlock, MLPEmbedder, SingleStreamBlock
from .config import NUMBERS, ChromaConfig


class Approximator(nn.Module):
    """Shifts, scales and gates of every block from the time: (B, rows, 64) -> (B, rows, hidden)."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        width, count = config.approximator_width, config.approximator_layers
        self.in_proj = nn.Linear(2 * NUMBERS, width)
        self.layers = nn.ModuleList(MLPEmbedder(width, width) for _ in range(count))
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(count))
        self.out_proj = nn.Linear(width, config.hidden_size)


class LastLayer(nn.Module):
    """Projection of image tokens to latent patches."""

    def __init__(self, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, out_channels)


class Chroma(nn.Module):
    """A Chroma transformer of any size; parameters carry BFL names (``double_blocks.0...``)."""

    def __init__(self, config: ChromaConfig) -> None:
        super().__init__()
        self.config = config
        hidden, singles = config.hidden_size, config.depth_single_blocks
        self.img_in = nn.Linear(config.in_channels, hidden)
        self.txt_in = nn.Linear(config.context_in_dim, hidden)
        self.distilled_guidance_layer = Approximator(config)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(config, modulated=False) for _ in range(config.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(config, modulated=False) for _ in range(singles)
        )
        self.final_layer = LastLayer(hidden, config.in_channels)
