"""The sizes of a Flux transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...errors import EraseError

HEAD_DIM = 128  # every published Flux has heads of this width
AXES_DIM = (16, 56, 56)  # RoPE channels of (index, row, column); they add up to HEAD_DIM
DEV_SHIFT = 1.15  # ComfyUI's mu for FLUX.1-dev, at any picture size; schnell has none


@dataclass(frozen=True)
class FluxConfig:
    """Sizes of a Flux transformer; the defaults are FLUX.1-dev's (12 B parameters).

    ``in_channels`` counts a 2 x 2 patch of 16 latent channels, ``vec_in_dim`` the pooled CLIP
    vector, ``context_in_dim`` the T5 states. ``guidance_embed`` is False for FLUX.1-schnell.
    """

    in_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    guidance_embed: bool = True
    mlp_ratio: float = 4.0

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> FluxConfig:
        """Read the sizes off a state dict's shapes, given under their BFL names.

        Raises
        ------
        EraseError
            When the keys are not those of a Flux transformer.
        """
        try:
            hidden_size, in_channels = shapes["img_in.weight"]
            return cls(
                in_channels=in_channels,
                vec_in_dim=shapes["vector_in.in_layer.weight"][1],
                context_in_dim=shapes["txt_in.weight"][1],
                hidden_size=hidden_size,
                num_heads=hidden_size // HEAD_DIM,
                depth=count_blocks(shapes, "double_blocks."),
                depth_single_blocks=count_blocks(shapes, "single_blocks."),
                guidance_embed="guidance_in.in_layer.weight" in shapes,
                mlp_ratio=shapes["double_blocks.0.img_mlp.0.weight"][0] / hidden_size,
            )
        except KeyError as error:
            raise EraseError(
                f"This is not a Flux transformer ({error} is missing); choose a FLUX.1-dev or "
                "FLUX.1-schnell file."
            ) from error
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise EraseError(
                "This is not a Flux transformer (its matrices have other shapes); choose a "
                "FLUX.1-dev or FLUX.1-schnell file."
            ) from error

    @property
    def shift(self) -> float | None:
        """The shift of the noise schedule: a mu, None for none."""
        return DEV_SHIFT if self.guidance_embed else None

    @classmethod
    def from_tree(cls, tree: nn.Module) -> FluxConfig:
        """Read the sizes off any module tree with BFL names, ComfyUI's own included."""
        return cls.from_shapes({name: tuple(p.shape) for name, p in tree.named_parameters()})


def count_blocks(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """How many different indices stand behind ``prefix``."""
    start = len(prefix)
    return len({name[start:].split(".")[0] for name in shapes if name.startswith(prefix)})
