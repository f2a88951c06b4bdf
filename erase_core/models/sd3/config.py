"""The sizes of a Stable Diffusion 3 transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ...errors import EraseError
from ..flux1.config import count_blocks

HEAD = 64  # width of every head
SHIFT = math.log(3)  # of the schedule, a mu: ComfyUI's and diffusers' shift of 3
ADVICE = "choose a Stable Diffusion 3.5 medium or large file"

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict's tensors, by our tree's names


@dataclass(frozen=True)
class SD3Config:
    """Sizes of a Stable Diffusion 3 transformer; the defaults are 3.5 medium's (2.5 B).

    ``in_channels`` counts those of a latent, of which 2 x 2 are a token. ``context_in_dim`` is the
    width of T5's states, which CLIP's are filled up to, and ``vec_in_dim`` that of both pooled
    vectors. In the blocks ``dual`` the image has a second attention to itself alone. ``positions``
    are the rows and columns of tokens that a picture may have; ``qk_norm`` is False for the first
    Stable Diffusion 3 alone.
    """

    in_channels: int = 16
    context_in_dim: int = 4096
    vec_in_dim: int = 2048
    hidden_size: int = 1536
    depth: int = 24
    dual: tuple[int, ...] = tuple(range(13))
    positions: int = 384
    qk_norm: bool = True

    @property
    def num_heads(self) -> int:
        return self.hidden_size // HEAD

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
    def from_shapes(cls, shapes: Shapes) -> SD3Config:
        """Read the sizes off shapes; EraseError when they are not those of a Stable Diffusion 3."""
        try:
            hidden_size, context_in_dim = shapes["context_embedder.weight"]
            depth = count_blocks(shapes, "joint_blocks.")
            second = "joint_blocks.{}.x_block.attn2.qkv.weight"
            return cls(
                in_channels=shapes["x_embedder.proj.weight"][1],
                context_in_dim=context_in_dim,
                vec_in_dim=shapes["y_embedder.mlp.0.weight"][1],
                hidden_size=hidden_size,
                depth=depth,
                dual=tuple(n for n in range(depth) if second.format(n) in shapes),
                positions=math.isqrt(shapes["pos_embed"][1]),
                qk_norm="joint_blocks.0.x_block.attn.ln_q.weight" in shapes,
            )
        except KeyError as error:
            what = f"{error} is missing"
        except (ValueError, IndexError):
            what = "its matrices have other shapes"
        raise EraseError(f"This is not a Stable Diffusion 3 transformer ({what}); {ADVICE}.")

    @classmethod
    def from_tree(cls, tree: nn.Module) -> SD3Config:
        """Read the sizes off any module tree with our names, ComfyUI's own included."""
        tensors = [*tree.named_parameters(), *tree.named_buffers()]
        return cls.from_shapes({name: tuple(tensor.shape) for name, tensor in tensors})


LARGE = SD3Config(hidden_size=2432, depth=38, dual=(), positions=192)
