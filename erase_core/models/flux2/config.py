"""The sizes of a FLUX.2 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..flux1.config import BlockConfig, Shapes

SHIFT = 2.02  # ComfyUI's mu for FLUX.2, at any picture size: BFL's for 50 steps of 1024 px
AXES_DIM = (32, 32, 32, 32)  # RoPE channels of (index, row, column, place in the text)
THETA = 2000


@dataclass(frozen=True)
class Flux2Config(BlockConfig):
    """Sizes of a FLUX.2 transformer; the defaults are klein-4B's (3.9 B parameters).

    ``in_channels`` counts the channels of a latent, each a token of its own; ``context_in_dim``
    three layers of Qwen3. ``guidance_embed`` is True for FLUX.2-dev alone.
    """

    in_channels: int = 128
    context_in_dim: int = 7680
    depth: int = 5
    depth_single_blocks: int = 20
    mlp_ratio: float = 3.0
    guidance_embed: bool = False

    BIAS = False
    GATED = True
    LABEL = "FLUX.2"
    ADVICE = "choose a FLUX.2-klein file"

    @classmethod
    def _read(cls, shapes: Shapes) -> dict[str, Any]:
        found = super()._read(shapes)
        return found | {
            "mlp_ratio": found["mlp_ratio"] / 2,
            "guidance_embed": "guidance_in.in_layer.weight" in shapes,
        }

    @property
    def shift(self) -> float:
        """The shift of the noise schedule, a mu."""
        return SHIFT


KLEIN_9B = Flux2Config(
    context_in_dim=12288, hidden_size=4096, num_heads=32, depth=8, depth_single_blocks=24
)
