"""The sizes of a Z-Image transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...errors import EraseError
from ..flux1.config import HEAD_DIM, count_blocks

AXES_DIM = (32, 48, 48)  # RoPE channels of (place in the text, row, column)
THETA = 256
MULTIPLE = 32  # text and image are filled up to whole multiples of so many tokens
TIME_DIM = 256  # width of what modulates the blocks, at most
SHIFT = math.log(3)  # of the schedule, a mu: ComfyUI's shift of 3 and the Turbo model's own

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict's tensors, by our tree's names


@dataclass(frozen=True)
class ZImageConfig:
    """Sizes of a Z-Image transformer; the defaults are those of the published ones (6.2 B).

    ``in_channels`` counts a 2 x 2 patch of 16 latent channels, ``context_in_dim`` Qwen3's states.
    ``depth`` are the blocks of text and image together; before them text and image have
    ``refiners`` blocks each. ``time_width`` is the inner width of the time's embedding.
    """

    in_channels: int = 64
    context_in_dim: int = 2560
    hidden_size: int = 3840
    num_heads: int = 30
    depth: int = 30
    refiners: int = 2
    mlp_width: int = 10240
    time_width: int = 1024

    @property
    def depth_single_blocks(self) -> int:
        """A refiner of the text and one of the image hold what a block of both does."""
        return self.refiners

    @property
    def guidance_embed(self) -> bool:
        """Guidance is no input of the model."""
        return False

    @property
    def time_dim(self) -> int:
        """Width of what modulates the blocks."""
        return min(self.hidden_size, TIME_DIM)

    @property
    def shift(self) -> float:
        """The shift of the noise schedule, a mu."""
        return SHIFT

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> ZImageConfig:
        """Read the sizes off shapes; EraseError when they are not those of a Z-Image."""
        try:
            hidden_size, context_in_dim = shapes["cap_embedder.1.weight"]
            return cls(
                in_channels=shapes["x_embedder.weight"][1],
                context_in_dim=context_in_dim,
                hidden_size=hidden_size,
                num_heads=hidden_size // HEAD_DIM,
                depth=count_blocks(shapes, "layers."),
                refiners=count_blocks(shapes, "context_refiner."),
                mlp_width=shapes["layers.0.feed_forward.w1.weight"][0],
                time_width=shapes["t_embedder.mlp.0.weight"][0],
            )
        except KeyError as error:
            what = f"{error} is missing"
        except (ValueError, IndexError):
            what = "its matrices have other shapes"
        raise EraseError(
            f"This is not a Z-Image transformer ({what}); choose a Z-Image or Z-Image-Turbo file."
        )

    @classmethod
    def from_tree(cls, tree: nn.Module) -> ZImageConfig:
        """Read the sizes off any module tree with our names, ComfyUI's own included."""
        return cls.from_shapes({name: tuple(p.shape) for name, p in tree.named_parameters()})
