"""The sizes of a Flux transformer, and those that every family with its blocks has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import nn

from ...errors import EraseError

HEAD_DIM = 128  # every published Flux has heads of this width
AXES_DIM = (16, 56, 56)  # RoPE channels of (index, row, column); they add up to HEAD_DIM
DEV_SHIFT = 1.15  # ComfyUI's mu for FLUX.1-dev, at any picture size; schnell has none

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict's tensors, by their BFL names
Config = TypeVar("Config", bound="BlockConfig")


@dataclass(frozen=True)
class BlockConfig:
    """Sizes of a transformer of Flux's blocks; the defaults are those of published ones.

    ``in_channels`` counts a 2 x 2 patch of 16 latent channels, ``context_in_dim`` the T5 states.
    A family adds its own sizes and tells in ``_read`` where they stand.
    """

    in_channels: int = 64
    context_in_dim: int = 4096
    hidden_size: int = 3072
    num_heads: int = 24
    depth: int = 19
    depth_single_blocks: int = 38
    mlp_ratio: float = 4.0

    BIAS: ClassVar[bool] = True  # of every Linear
    GATED: ClassVar[bool] = False  # the MLPs: half of what they compute gates the other half
    LABEL: ClassVar[str] = ""
    ADVICE: ClassVar[str] = ""  # what to choose instead of another file

    @classmethod
    def from_shapes(cls: type[Config], shapes: Shapes) -> Config:
        """Read the sizes off shapes; EraseError when they are not those of such a transformer."""
        try:
            return cls(**cls._read(shapes))
        except KeyError as error:
            raise EraseError(
                f"This is not a {cls.LABEL} transformer ({error} is missing); {cls.ADVICE}."
            ) from error
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise EraseError(
                f"This is not a {cls.LABEL} transformer (its matrices have other shapes); "
                f"{cls.ADVICE}."
            ) from error

    @classmethod
    def from_tree(cls: type[Config], tree: nn.Module) -> Config:
        """Read the sizes off any module tree with BFL names, ComfyUI's own included."""
        return cls.from_shapes({name: tuple(p.shape) for name, p in tree.named_parameters()})

    @classmethod
    def _read(cls, shapes: Shapes) -> dict[str, Any]:
        hidden_size, in_channels = shapes["img_in.weight"]
        return {
            "in_channels": in_channels,
            "context_in_dim": shapes["txt_in.weight"][1],
            "hidden_size": hidden_size,
            "num_heads": hidden_size // HEAD_DIM,
            "depth": count_blocks(shapes, "double_blocks."),
            "depth_single_blocks": count_blocks(shapes, "single_blocks."),
            "mlp_ratio": shapes["double_blocks.0.img_mlp.0.weight"][0] / hidden_size,
        }


@dataclass(frozen=True)
class FluxConfig(BlockConfig):
    """Sizes of a Flux transformer; the defaults are FLUX.1-dev's (12 B parameters).

    ``vec_in_dim`` is the width of the pooled CLIP vector; ``guidance_embed`` is False for
    FLUX.1-schnell.
    """

    vec_in_dim: int = 768
    guidance_embed: bool = True

    LABEL = "Flux"
    ADVICE = "choose a FLUX.1-dev or FLUX.1-schnell file"

    @classmethod
    def _read(cls, shapes: Shapes) -> dict[str, Any]:
        return super()._read(shapes) | {
            "vec_in_dim": shapes["vector_in.in_layer.weight"][1],
            "guidance_embed": "guidance_in.in_layer.weight" in shapes,
        }

    @property
    def shift(self) -> float | None:
        """The shift of the noise schedule: a mu, None for none."""
        return DEV_SHIFT if self.guidance_embed else None


def count_blocks(names: Mapping[str, Any], prefix: str) -> int:
    """How many different indices stand behind ``prefix``."""
    start = len(prefix)
    return len({name[start:].split(".")[0] for name in names if name.startswith(prefix)})
