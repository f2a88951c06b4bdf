"""One forward pass over any Stable Diffusion 3 tree: trainable, probed, adapted.

No rotation tells a token its place: an image token gets a vector of it once, and text tokens have
none. In some blocks of 3.5 medium the image has a second attention to itself alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import EraseError
from ..attention import probe_attention
from ..base import Adapter, Conditioning, Output, Probe
from ..flux1.forward import (
    Pass,
    channels_first,
    compute_dtype,
    modulate,
    sinusoid,
    unpatchify,
)
from .config import HEAD

NORM = "x_embedder.proj.bias"  # which no quantisation touches: it tells what a tree computes in


def sd3_forward(
    tree: nn.Module,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | Tensor | None = None,
    *,
    eraser: Adapter | None = None,
    probe: Probe | None = None,
    checkpoint: bool = False,
) -> Output:
    """Run a Stable Diffusion 3 tree; parameters as in
    :func:`~erase_core.models.flux1.forward.flux_forward`.

    ``guidance`` is not looked at: a negative prompt is a pass of its own. EraseError for pictures
    that are larger than the tree has places for.
    """
    run = SD3Pass(tree, eraser, probe, checkpoint)
    dtype = compute_dtype(tree, latents, NORM)
    assert cond.pooled is not None, "Stable Diffusion 3 reads CLIP's pooled vectors"
    vec = run.modulator(sigma.expand(len(latents)), cond.pooled.to(dtype))
    return run.predict(latents, cond.context, vec, dtype)


class SD3Pass(Pass):
    """One pass: the tree, its adapter and its probe, and the blocks computed with them."""

    joint = "joint_blocks"

    def modulator(self, sigma: Tensor, pooled: Tensor) -> Tensor:
        """What modulates all blocks, (B, 1, hidden), from time and pooled text."""
        time = self.embed("t_embedder", sinusoid(sigma).to(pooled.dtype))
        return F.silu(time + self.embed("y_embedder", pooled))[:, None]

    def embed(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.mlp.2", F.silu(self.linear(f"{name}.mlp.0", x)))

    def predict(self, latents: Tensor, context: Tensor, vec: Tensor, dtype: torch.dtype) -> Output:
        """The pass at latents (B, C, h, w), computed in ``dtype``."""
        height, width = latents.shape[2:]
        img, rows, columns = self.tokens(latents.to(dtype))
        txt = self.linear("context_embedder", context.to(dtype))
        img, _, attention = self.double_blocks(img, txt, vec, None)
        if self.probe is not None and self.probe.stop:
            return Output(None, attention)
        out = channels_first(self.final_layer(img, vec))
        predicted = unpatchify(out, rows, columns)[:, :, :height, :width]
        return Output(predicted.to(torch.promote_types(latents.dtype, torch.float32)), attention)

    def tokens(self, latents: Tensor) -> tuple[Tensor, int, int]:
        """The image tokens of latents at their places, row by row, with the number of rows and
        columns."""
        height, width = latents.shape[2:]
        padded = F.pad(latents, (0, width % 2, 0, height % 2), mode="circular")
        patches = self.tree.get_submodule("x_embedder.proj")(padded)
        rows, columns = patches.shape[2:]
        places = middle(self.tree.pos_embed, rows, columns)
        return patches.flatten(2).transpose(1, 2) + places.to(patches, copy=True), rows, columns

    def double_block(
        self,
        index: int,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        rope: Tensor | None,
        probed: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One block; the ``last`` one of a pass that stops ends with its attention."""
        text, image = (f"joint_blocks.{index}.{part}_block" for part in ("context", "x"))
        length, written = txt.shape[1], self.has(text, "mlp")
        words = self.modulation(text, vec, 6 if written else 2)
        dual = self.has(image, "attn2")
        own = self.modulation(image, vec, 9 if dual else 6)
        parts = self.entering(text, txt, words), self.entering(image, img, own)
        q, k, v = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        attention = None
        if probed and self.probe:
            tokens, chunk = self.probe.tokens, self.probe.chunk
            attention = probe_attention(q[:, :, length:], k, tokens, chunk)
        if last:
            return img, txt, attention
        mixed = self.attend(q, k, v)
        second = self.second(image, img, own[6:]) if dual else None
        img = self.leaving(image, img, mixed[:, length:], own, second)
        if written:
            txt = self.leaving(text, txt, mixed[:, :length], words)
        return img, txt, attention

    def has(self, name: str, child: str) -> bool:
        """Whether the tree's module ``name`` has such a part: blocks differ."""
        return hasattr(self.tree.get_submodule(name), child)

    def modulation(self, name: str, vec: Tensor, parts: int) -> Sequence[Tensor]:
        """Shifts, scales and gates, ``parts`` of (B, 1, hidden), of a stream of a block."""
        own = name.endswith("_block")
        return super().modulation(f"{name}.adaLN_modulation.1" if own else name, vec, parts)

    def entering(
        self, name: str, x: Tensor, mod: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised q, k and plain v of one stream, each (B, heads, T, HEAD)."""
        return self.heads(f"{name}.attn", modulate(x, mod[0], mod[1]))

    def heads(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of what an attention reads."""
        qkv = self.linear(f"{name}.qkv", x).unflatten(-1, (3, -1, HEAD))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.has(name, "ln_q"):
            q, k = self.normalise(f"{name}.ln_q", q), self.normalise(f"{name}.ln_k", k)
        return q.to(v.dtype), k.to(v.dtype), v

    def second(self, name: str, x: Tensor, mod: Sequence[Tensor]) -> Tensor:
        """What the image's attention to itself alone adds to it."""
        mixed = self.attend(*self.heads(f"{name}.attn2", modulate(x, mod[0], mod[1])))
        return mod[2] * self.linear(f"{name}.attn2.proj", mixed)

    def leaving(
        self,
        name: str,
        x: Tensor,
        mixed: Tensor,
        mod: Sequence[Tensor],
        more: Tensor | None = None,
    ) -> Tensor:
        """One stream after its attention, ``more`` of the image's own, and its MLP."""
        x = x + mod[2] * self.linear(f"{name}.attn.proj", mixed)
        if more is not None:
            x = x + more
        inner = self.activate(self.linear(f"{name}.mlp.fc1", modulate(x, mod[3], mod[4])))
        return x + mod[5] * self.linear(f"{name}.mlp.fc2", inner)


def middle(places: Tensor, rows: int, columns: int) -> Tensor:
    """So many rows and columns (1, rows * columns, D) from the middle of a square of places
    (1, N * N, D); EraseError where it has not as many."""
    side = math.isqrt(places.shape[1])
    if max(rows, columns) > side:
        raise EraseError(
            f"This model knows pictures of at most {16 * side} px a side; choose a smaller one."
        )
    top, left = (side - rows) // 2, (side - columns) // 2
    square = places.unflatten(1, (side, side))
    return square[:, top : top + rows, left : left + columns].flatten(1, 2)
