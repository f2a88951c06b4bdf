"""The module tree of Stable Diffusion 3 under the names of its authors' files: blocks with a text
and an image stream, whose last one writes no text.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

import torch
from torch import nn

from ..flux1.tree import LastLayer
from .config import HEAD, SD3Config

TIME_DIM = 256  # width of the time's embedding
MLP = 4  # width of the blocks' MLPs, in widths of the model


class Attention(nn.Module):
    """One stream's part of an attention: fused q, k and v, normalised over the head width;
    ``written`` where its output is."""

    def __init__(self, config: SD3Config, written: bool = True) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.qkv = nn.Linear(hidden, 3 * hidden)
        if written:
            self.proj = nn.Linear(hidden, hidden)
        if config.qk_norm:
            self.ln_q = nn.RMSNorm(HEAD, eps=1e-6)
            self.ln_k = nn.RMSNorm(HEAD, eps=1e-6)


class Mlp(nn.Module):
    """What follows an attention."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, MLP * hidden)
        self.fc2 = nn.Linear(MLP * hidden, hidden)


class StreamBlock(nn.Module):
    """One stream of a block; ``written`` but for the last block's text, ``dual`` where it has a
    second attention to itself alone."""

    def __init__(self, config: SD3Config, written: bool = True, dual: bool = False) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attn = Attention(config, written)
        if dual:
            self.attn2 = Attention(config)
        if written:
            self.mlp = Mlp(hidden)
        parts = (9 if dual else 6) if written else 2
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, parts * hidden))


class JointBlock(nn.Module):
    """A text and an image stream with their own weights and one joint attention."""

    def __init__(self, config: SD3Config, index: int) -> None:
        super().__init__()
        self.context_block = StreamBlock(config, written=index < config.depth - 1)
        self.x_block = StreamBlock(config, dual=index in config.dual)


class Embedder(nn.Module):
    """Embeds the time or the pooled text vectors: (B, width) -> (B, hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))


class PatchEmbed(nn.Module):
    """Makes tokens of a picture's patches."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden, kernel_size=2, stride=2)


class SD3(nn.Module):
    """A Stable Diffusion 3 transformer of any size; parameters carry its authors' names
    (``joint_blocks.0...``)."""

    def __init__(self, config: SD3Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.pos_embed = nn.Parameter(torch.zeros(1, config.positions**2, hidden))
        self.x_embedder = PatchEmbed(config.in_channels, hidden)
        self.t_embedder = Embedder(TIME_DIM, hidden)
        self.y_embedder = Embedder(config.vec_in_dim, hidden)
        self.context_embedder = nn.Linear(config.context_in_dim, hidden)
        self.joint_blocks = nn.ModuleList(JointBlock(config, n) for n in range(config.depth))
        self.final_layer = LastLayer(hidden, 4 * config.in_channels)
