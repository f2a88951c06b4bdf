"""One forward pass over any Qwen-Image tree: trainable, probed, adapted.

Flux's blocks with other names: each stream has projections of its own for q, k and v, and the time
alone modulates them. The image's tokens stand around (0, 0), the text's on the diagonal behind
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Adapter, Conditioning, Output, Probe
from ..flux1.config import AXES_DIM, HEAD_DIM
from ..flux1.forward import (
    THETA,
    Pass,
    compute_dtype,
    modulate,
    normalise,
    over_all,
    places,
    rotations,
    sinusoid,
)
from .tree import IMAGE, NORMS, TEXT

NORM = "norm_q"  # in the names of the norms that tell what a tree computes in
_TIME = "time_text_embed.timestep_embedder"


def qwen_image_forward(
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
    """Run a Qwen-Image tree; parameters as in
    :func:`~erase_core.models.flux1.forward.flux_forward`.

    ``guidance`` is not looked at: a negative prompt is a pass of its own. Text tokens that
    ``cond.mask`` leaves out are seen by nobody.
    """
    cond, probe = shortened(cond, probe)
    mask = None if cond.mask is None else over_all(cond.mask, latents)
    run = QwenImagePass(tree, eraser, probe, checkpoint, mask)
    dtype = compute_dtype(tree, latents, NORM)
    vec = run.time(sigma.expand(len(latents)), dtype)
    context = run.normalise("txt_norm", cond.context.to(dtype))
    return run.predict(latents, context, vec, dtype)


@torch.no_grad()
def entering(tree: nn.Module, states: Tensor) -> Tensor:
    """What ``txt_in`` reads of a prompt's states (N, D): normalised ones."""
    norm = tree.get_submodule("txt_norm")
    weight = next(norm.parameters(), states)
    return normalise(norm, states.to(weight.device)).to(states)


def shortened(cond: Conditioning, probe: Probe | None) -> tuple[Conditioning, Probe | None]:
    """The prompts and a probe of them up to the last token that any row reads. The mask is None
    where every row reads all of these."""
    length = cond.context.shape[1]
    if cond.mask is not None:
        length = int(cond.mask.any(0).nonzero().max()) + 1
        mask = cond.mask[:, :length]
        context = cond.context[:, :length]
        cond = replace(cond, context=context, mask=None if mask.all() else mask)
    if probe is not None:
        probe = replace(probe, tokens=probe.tokens[..., :length])
    return cond, probe


class QwenImagePass(Pass):
    """One pass: the tree, its adapter and its probe, and the blocks computed with them."""

    joint = "transformer_blocks"

    def time(self, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        """What modulates all blocks, (B, 1, hidden)."""
        inner = F.silu(self.linear(f"{_TIME}.linear_1", sinusoid(sigma).to(dtype)))
        return F.silu(self.linear(f"{_TIME}.linear_2", inner))[:, None]

    def rope(self, text: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """Rotations of all tokens: of the image's around (0, 0, 0), the longer half of an odd
        number before it, as diffusers has them; of the text's behind them on all axes."""
        position = places(text, rows, columns, len(AXES_DIM))
        position[text:, 1] -= rows - rows // 2
        position[text:, 2] -= columns - columns // 2
        position[:text] = (max(rows, columns) // 2 + torch.arange(text))[:, None].double()
        return rotations(position, AXES_DIM, THETA, device)

    def modulation(self, name: str, vec: Tensor, parts: int) -> Sequence[Tensor]:
        """Shifts, scales and gates of a stream of a block."""
        return super().modulation(name.replace("_mod.lin", "_mod.1"), vec, parts)

    def stream_qkv(self, name: str, x: Tensor, mod: Sequence[Tensor]) -> Sequence[Tensor]:
        """Normalised q, k and plain v of one stream, each (B, heads, T, HEAD_DIM)."""
        block, _, stream = name.removesuffix("_attn").rpartition(".")
        x = modulate(x, mod[0], mod[1])
        q, k, v = (
            self.linear(f"{block}.attn.{part}", x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            for part in (TEXT if stream == "txt" else IMAGE)
        )
        norms = (f"{block}.attn.{norm}" for norm in NORMS[stream])
        q, k = (self.normalise(norm, part) for norm, part in zip(norms, (q, k), strict=True))
        return q.to(v.dtype), k.to(v.dtype), v

    def stream_out(
        self, name: str, stream: str, x: Tensor, mixed: Tensor, mod: Sequence[Tensor]
    ) -> Tensor:
        out = "to_add_out" if stream == "txt" else "to_out.0"
        x = x + mod[2] * self.linear(f"{name}.attn.{out}", mixed)
        mlp = f"{name}.{stream}_mlp.net"
        inner = self.activate(self.linear(f"{mlp}.0.proj", modulate(x, mod[3], mod[4])))
        return x + mod[5] * self.linear(f"{mlp}.2", inner)

    def single_blocks(self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor) -> Tensor:
        """There are none."""
        return img

    def final_layer(self, img: Tensor, vec: Tensor) -> Tensor:
        scale, shift = super().modulation("norm_out.linear", vec, 2)
        return self.linear("proj_out", modulate(img, shift, scale))
