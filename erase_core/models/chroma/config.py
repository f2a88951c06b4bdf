"""The sizes of a Chroma transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...errors import EraseError
from ..flux1.config import DEV_SHIFT, HEAD_DIM, count_blocks

NUMBERS = 32  # of a row's place, and of time and guidance together: what the approximator reads
ADVICE = "choose a Chroma1-HD or Chroma1-Base file"


@dataclass(frozen=True)
class ChromaConfig:
    """Sizes of a Chroma transformer; the defaults are Chroma1's (8.9 B parameters).

    ``in_channels`` counts a 2 x 2 patch of 16 latent channels, ``context_in_dim`` the T5 states.
    The ``approximator_`` sizes are those of the network that modulates all blocks.
    """

    in_channels: int = 64
    context_in_dim: int = 4096
    hidden_size: int = 3072
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    mlp_ratio: float = 4.0
    approximator_width: int = 5120
    approximator_layers: int = 5

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> ChromaConfig:
        """Read the sizes off a state dict's shapes, given under their BFL names.

        Raises
        ------
        EraseError
            When the keys are not those of a Chroma transformer.
        """
        try:
            hidden_size, in_channels = shapes["img_in.weight"]
            return cls(
                in_channels=in_channels,
                context_in_dim=shapes["txt_in.weight"][1],
                hidden_size=hidden_size,
                num_heads=hidden_size // HEAD_DIM,
                depth=count_blocks(shapes, "double_blocks."),
                depth_single_blocks=count_blocks(shapes, "single_blocks."),
                mlp_ratio=shapes["double_blocks.0.img_mlp.0.weight"][0] / hidden_size,
                approximator_width=shapes["distilled_guidance_layer.in_proj.weight"][0],
                approximator_layers=count_blocks(shapes, "distilled_guidance_layer.layers."),
            )
        except KeyError as error:
            raise EraseError(
                f"This is not a Chroma transformer ({error} is missing); {ADVICE}."
            ) from error
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise EraseError(
                f"This is not a Chroma transformer (its matrices have other shapes); {ADVICE}."
            ) from error

    @property
    def guidance_embed(self) -> bool:
        """False: guidance is the scale of a negative prompt. The approximator has an input for it,
        at which the published models are always given 0."""
        return False

    @property
    def shift(self) -> float:
        """The shift of the noise schedule as ComfyUI's Chroma has it, at any picture size."""
        return DEV_SHIFT

    @classmethod
    def from_tree(cls, tree: nn.Module) -> ChromaConfig:
        """Read the sizes off any module tree with BFL names, ComfyUI's own included."""
        return cls.from_shapes({name: tuple(p.shape) for name, p in tree.named_parameters()})
