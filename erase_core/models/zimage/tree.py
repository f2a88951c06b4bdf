"""The module tree of Z-Image under the names of its authors' files: blocks that read the image,
blocks that read the text, and then blocks that read both as one stream.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

import torch
from torch import nn

from ..flux1.config import HEAD_DIM
from .config import ZImageConfig

EPS = 1e-5  # of all RMS norms


class SelfAttention(nn.Module):
    """Fused q, k and v, normalised over the head width."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.q_norm = nn.RMSNorm(HEAD_DIM, eps=EPS)
        self.k_norm = nn.RMSNorm(HEAD_DIM, eps=EPS)


class FeedForward(nn.Module):
    """A gated MLP: w1 gates w3."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(hidden, inner, bias=False)
        self.w2 = nn.Linear(inner, hidden, bias=False)
        self.w3 = nn.Linear(hidden, inner, bias=False)


class Block(nn.Module):
    """Attention and MLP with norms before and behind; ``modulated`` by the time."""

    def __init__(self, config: ZImageConfig, modulated: bool = True) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attention = SelfAttention(hidden)
        self.feed_forward = FeedForward(hidden, config.mlp_width)
        for name in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
            self.add_module(name, nn.RMSNorm(hidden, eps=EPS))
        if modulated:
            self.adaLN_modulation = nn.Sequential(nn.Linear(config.time_dim, 4 * hidden))


class TimeEmbedder(nn.Module):
    """Embeds the time."""

    def __init__(self, config: ZImageConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(256, config.time_width),
            nn.SiLU(),
            nn.Linear(config.time_width, config.time_dim),
        )


class LastLayer(nn.Module):
    """Scaled projection of image tokens to latent patches."""

    def __init__(self, config: ZImageConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.in_channels)
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(config.time_dim, config.hidden_size)
        )


class ZImage(nn.Module):
    """A Z-Image transformer of any size; parameters carry its authors' names (``layers.0...``)."""

    def __init__(self, config: ZImageConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.x_pad_token = nn.Parameter(torch.zeros(1, hidden))
        self.cap_pad_token = nn.Parameter(torch.zeros(1, hidden))
        self.x_embedder = nn.Linear(config.in_channels, hidden)
        self.t_embedder = TimeEmbedder(config)
        self.cap_embedder = nn.Sequential(
            nn.RMSNorm(config.context_in_dim, eps=EPS), nn.Linear(config.context_in_dim, hidden)
        )
        self.noise_refiner = nn.ModuleList(Block(config) for _ in range(config.refiners))
        self.context_refiner = nn.ModuleList(
            Block(config, modulated=False) for _ in range(config.refiners)
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = LastLayer(config)
