"""The module tree of Flux under the names of Black Forest Labs' files.

The tree holds weights only; :mod:`.forward` computes with it, and with any other tree of the same
names.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..base import Adapter, Conditioning
from .config import BlockConfig, FluxConfig
from .forward import velocity


class MLPEmbedder(nn.Module):
    """Embeds the time, the guidance or the pooled text vector: (B, in_dim) -> (B, hidden)."""

    def __init__(self, in_dim: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden, bias)
        self.silu = nn.SiLU()
        self.out_layer = nn.Linear(hidden, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(self.silu(self.in_layer(x)))


class QKNorm(nn.Module):
    """RMS norms of queries and keys over the head width."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.key_norm = nn.RMSNorm(head_dim, eps=1e-6)


class SelfAttention(nn.Module):
    """One stream's part of a joint attention."""

    def __init__(self, hidden: int, head_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden, bias)
        self.norm = QKNorm(head_dim)
        self.proj = nn.Linear(hidden, hidden, bias)


class Modulation(nn.Module):
    """Shift, scale and gate of a block (twice for a double block's stream)."""

    def __init__(self, hidden: int, parts: int, bias: bool = True) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden, parts * hidden, bias)


class DoubleStreamBlock(nn.Module):
    """Image and text streams with their own weights and one joint attention; ``modulated`` by
    Linears of its own."""

    def __init__(self, config: BlockConfig, modulated: bool = True) -> None:
        super().__init__()
        hidden, head_dim = config.hidden_size, config.hidden_size // config.num_heads
        mlp, bias = round(hidden * config.mlp_ratio), config.BIAS
        first = mlp * (1 + config.GATED)
        for stream in ("img", "txt"):
            if modulated:
                self.add_module(f"{stream}_mod", Modulation(hidden, 6))
            self.add_module(f"{stream}_attn", SelfAttention(hidden, head_dim, bias))
            self.add_module(
                f"{stream}_mlp",
                nn.Sequential(  # the forward knows what is between the two
                    nn.Linear(hidden, first, bias), nn.Identity(), nn.Linear(mlp, hidden, bias)
                ),
            )


class SingleStreamBlock(nn.Module):
    """One stream of text and image tokens, attention and MLP side by side; ``modulated`` by a
    Linear of its own."""

    def __init__(self, config: BlockConfig, modulated: bool = True) -> None:
        super().__init__()
        hidden = config.hidden_size
        mlp = round(hidden * config.mlp_ratio)
        self.linear1 = nn.Linear(hidden, 3 * hidden + mlp * (1 + config.GATED), config.BIAS)
        self.linear2 = nn.Linear(hidden + mlp, hidden, config.BIAS)
        self.norm = QKNorm(hidden // config.num_heads)
        if modulated:
            self.modulation = Modulation(hidden, 3)


class LastLayer(nn.Module):
    """Modulated projection of image tokens to latent patches."""

    def __init__(self, hidden: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, out_channels, bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden, bias))


class Flux(nn.Module):
    """A Flux transformer of any size; parameters carry BFL names (``double_blocks.0...``)."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.img_in = nn.Linear(config.in_channels, hidden)
        self.time_in = MLPEmbedder(256, hidden)
        self.vector_in = MLPEmbedder(config.vec_in_dim, hidden)
        self.guidance_in = MLPEmbedder(256, hidden) if config.guidance_embed else nn.Identity()
        self.txt_in = nn.Linear(config.context_in_dim, hidden)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(config) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(config) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = LastLayer(hidden, config.in_channels)

    def forward(
        self,
        latents: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | Tensor | None = None,
        eraser: Adapter | None = None,
    ) -> Tensor:
        """Velocity, shaped like ``latents``; see :func:`.forward.velocity`."""
        return velocity(self, latents, sigma, cond, guidance, eraser=eraser)
