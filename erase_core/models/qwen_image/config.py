"""The sizes of a Qwen-Image transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...errors import EraseError
from ..flux1.config import HEAD_DIM, count_blocks

SHIFT = 1.15  # ComfyUI's mu, at any picture size
ADVICE = "choose a Qwen-Image file"

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict's tensors


@dataclass(frozen=True)
class QwenImageConfig:
    """Sizes of a Qwen-Image transformer; the defaults are those of the published one (20.4 B).

    ``in_channels`` counts a 2 x 2 patch of 16 latent channels, ``context_in_dim`` Qwen2.5-VL's
    states.
    """

    in_channels: int = 64
    context_in_dim: int = 3584
    hidden_size: int = 3072
    num_heads: int = 24
    depth: int = 60

    @property
    def depth_single_blocks(self) -> int:
        """None: every block has a text stream."""
        return 0

    @property
    def guidance_embed(self) -> bool:
        """Guidance is no input of the model."""
        return False

    @property
    def shift(self) -> float:
        """The shift of the noise schedule, a mu."""
        return SHIFT

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> QwenImageConfig:
        """Read the sizes off shapes; EraseError when they are not those of a Qwen-Image."""
        try:
            hidden_size, context_in_dim = shapes["txt_in.weight"]
            return cls(
                in_channels=shapes["img_in.weight"][1],
                context_in_dim=context_in_dim,
                hidden_size=hidden_size,
                num_heads=hidden_size // HEAD_DIM,
                depth=count_blocks(shapes, "transformer_blocks."),
            )
        except KeyError as error:
            what = f"{error} is missing"
        except (ValueError, IndexError):
            what = "its matrices have other shapes"
        raise EraseError(f"This is not a Qwen-Image transformer ({what}); {ADVICE}.")

    @classmethod
    def from_tree(cls, tree: nn.Module) -> QwenImageConfig:
        """Read the sizes off any module tree with these names, ComfyUI's own included."""
        return cls.from_shapes({name: tuple(p.shape) for name, p in tree.named_parameters()})
