"""The sizes of a Chroma transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..flux1.config import DEV_SHIFT, BlockConfig, Shapes, count_blocks

NUMBERS = 32  # of a row's place, and of time and guidance together: what the approximator reads


@dataclass(frozen=True)
class ChromaConfig(BlockConfig):
    """Sizes of a Chroma transformer; the defaults are Chroma1's (8.9 B parameters).

    The ``approximator_`` sizes are those of the network that modulates all blocks.
    """

    approximator_width: int = 5120
    approximator_layers: int = 5

    LABEL = "Chroma"
    ADVICE = "choose a Chroma1-HD or Chroma1-Base file"

    @classmethod
    def _read(cls, shapes: Shapes) -> dict[str, Any]:
        return super()._read(shapes) | {
            "approximator_width": shapes["distilled_guidance_layer.in_proj.weight"][0],
            "approximator_layers": count_blocks(shapes, "distilled_guidance_layer.layers."),
        }

    @property
    def guidance_embed(self) -> bool:
        """False: guidance is the scale of a negative prompt. The approximator has an input for it,
        at which the published models are always given 0."""
        return False

    @property
    def shift(self) -> float:
        """The shift of the noise schedule as ComfyUI's Chroma has it, at any picture size."""
        return DEV_SHIFT
