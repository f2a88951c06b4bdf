"""One forward pass over any Z-Image tree: trainable, probed, adapted.

Text and image are refined apart and then read as one stream, text first. Each is filled up to whole
multiples of 32 tokens with a learned one, which is read as any other. The tree predicts the way
back at time 1 - sigma, so that its output's negative is the velocity.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import probe_attention
from ..base import Adapter, Conditioning, Output, Probe
from ..flux1.config import HEAD_DIM
from ..flux1.forward import (
    Pass,
    channels_first,
    channels_last,
    compute_dtype,
    normalise,
    patchify,
    places,
    rotate,
    rotations,
    sinusoid,
    unpatchify,
)
from .config import AXES_DIM, MULTIPLE, THETA

NORM = "q_norm"  # in the names of the norms that tell what a tree computes in


class Stream(NamedTuple):
    """Tokens ``x`` (B, T, hidden) with their rotations (B or 1, 1, T, HEAD_DIM / 2), and which of
    them are seen, (B, 1, 1, T) bool; None for all."""

    x: Tensor
    rope: Tensor
    mask: Tensor | None


def zimage_forward(
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
    """Run a Z-Image tree; parameters as in :func:`~erase_core.models.flux1.forward.flux_forward`.

    ``guidance`` is not looked at: a negative prompt is a pass of its own. Tokens before the last
    one that the mask of ``cond`` leaves out count as filling.
    """
    run = ZImagePass(tree, eraser, probe, checkpoint)
    dtype = compute_dtype(tree, latents, NORM)
    height, width = latents.shape[2:]
    vec = run.time(sigma.expand(len(latents)), dtype)
    rows, columns = -(-height // 2), -(-width // 2)
    queries = rows * columns
    x, attention = run.stream(run.refined(latents.to(dtype), cond, vec), vec, queries)
    if x is None:
        return Output(None, attention)
    text = x.shape[1] - _whole(queries)
    out = run.final_layer(x[:, text : text + queries], vec)
    picture = unpatchify(channels_first(out), rows, columns)[:, :, :height, :width]
    return Output(-picture.to(torch.promote_types(latents.dtype, torch.float32)), attention)


@torch.no_grad()
def entering(tree: nn.Module, states: Tensor) -> Tensor:
    """What ``cap_embedder.1`` reads of a prompt's states (N, D): normalised ones."""
    norm = tree.get_submodule("cap_embedder.0")
    weight = next(norm.parameters(), states)
    return normalise(norm, states.to(weight.device)).to(states)


class ZImagePass(Pass):
    """One pass: the tree, its adapter and its probe, and the blocks computed with them."""

    def time(self, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        """What modulates all blocks, (B, 1, at most 256)."""
        inner = F.silu(self.linear("t_embedder.mlp.0", sinusoid(1 - sigma).to(dtype)))
        return self.linear("t_embedder.mlp.2", inner)[:, None]

    def refined(self, latents: Tensor, cond: Conditioning, vec: Tensor) -> Stream:
        """Text and image, refined apart, as one stream."""
        text, starts = self.text(cond, latents.dtype)
        image = self.image(latents, starts)
        for index in range(len(self.tree.noise_refiner)):
            x, _ = self.block(self.layer, f"noise_refiner.{index}", image, vec)
            image = image._replace(x=x)
        for index in range(len(self.tree.context_refiner)):
            x, _ = self.block(self.layer, f"context_refiner.{index}", text, None)
            text = text._replace(x=x)
        mask = text.mask
        if mask is not None:
            mask = F.pad(mask, (0, image.x.shape[1]), value=True)
        ropes = text.rope.expand(len(image.rope), -1, -1, -1), image.rope
        return Stream(torch.cat([text.x, image.x], dim=1), torch.cat(ropes, dim=2), mask)

    def text(self, cond: Conditioning, dtype: torch.dtype) -> tuple[Stream, Tensor]:
        """The text before its refiner, and on which place of its axis the image stands, (B or 1,).

        Each prompt is filled up by itself; what a longer one of the batch adds is not seen.
        """
        x = self.normalise("cap_embedder.0", cond.context.to(dtype))
        x = self.linear("cap_embedder.1", x)
        pad = -x.shape[1] % MULTIPLE
        x, length, device = F.pad(x, (0, 0, 0, pad)), x.shape[1] + pad, x.device
        count = torch.arange(length, device=device)
        own = (count < length - pad)[None]
        if cond.mask is not None:
            own = F.pad(cond.mask, (0, pad))
        x = torch.where(own[..., None], x, self.tree.cap_pad_token.to(x, copy=True))
        last = ((count + 1) * own).amax(1)
        filled = _whole(last)
        seen = None if cond.mask is None else (count < filled[:, None])[:, None, None]
        return Stream(x, _along(length, device)[None, None], seen), filled + 1

    def image(self, latents: Tensor, starts: Tensor) -> Stream:
        """The image before its refiner; it stands at ``starts``."""
        tokens, rows, columns = patchify(latents)
        x = self.linear("x_embedder", channels_last(tokens))
        pad = -x.shape[1] % MULTIPLE
        fill = self.tree.x_pad_token.to(x, copy=True).expand(len(x), pad, -1)
        rope = F.pad(_across(starts, rows, columns, x.device), (0, 0, 0, pad), value=1.0)
        return Stream(torch.cat([x, fill], dim=1), rope[:, None], None)

    def stream(
        self, both: Stream, vec: Tensor, queries: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """All blocks of both, and what was probed; no tokens where the pass stops before its end.
        ``queries`` counts the image's own tokens."""
        wanted = self.probe.blocks if self.probe else ()
        last = max(wanted) if self.probe and self.probe.stop else None
        found: dict[int, Tensor] = {}
        for index in range(len(self.tree.layers)):
            x, attention = self.block(
                self.layer,
                f"layers.{index}",
                both,
                vec,
                queries if index in wanted else 0,
                index == last,
            )
            both = both._replace(x=x)
            if index in wanted:
                found[index] = attention
            if index == last:
                break
        stacked = torch.stack([found[index] for index in wanted], dim=1) if wanted else None
        return (None if last is not None else both.x), stacked

    def layer(
        self, name: str, stream: Stream, vec: Tensor | None, queries: int = 0, last: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """One block, with what the ``queries`` first image tokens pay to words, if any; the
        ``last`` one of a pass that stops ends with that."""
        x, rope, mask = stream
        scale, gate, mlp_scale, mlp_gate = self.scales(name, vec)
        q, k, v = self.heads(
            f"{name}.attention", self.normalise(f"{name}.attention_norm1", x) * scale
        )
        q, k = rotate(q, rope), rotate(k, rope)
        attention = self.probed(q, k, mask, queries) if queries else None
        if last:
            return x, attention
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        out = self.linear(f"{name}.attention.out", mixed)
        x = x + gate * self.normalise(f"{name}.attention_norm2", out)
        out = self.feed(f"{name}.feed_forward", self.normalise(f"{name}.ffn_norm1", x) * mlp_scale)
        return x + mlp_gate * self.normalise(f"{name}.ffn_norm2", out), attention

    def scales(self, name: str, vec: Tensor | None) -> list[Tensor] | list[float]:
        """Scale and gate of the attention, and of the MLP; ones where no time modulates."""
        if vec is None:
            return [1.0] * 4
        rows = self.linear(f"{name}.adaLN_modulation.0", vec).chunk(4, dim=-1)
        return [row.tanh() if index % 2 else 1 + row for index, row in enumerate(rows)]

    def heads(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised q, k and plain v of x, each (B, heads, T, HEAD_DIM)."""
        qkv = self.linear(f"{name}.qkv", x).unflatten(-1, (3, -1, HEAD_DIM))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = self.normalise(f"{name}.q_norm", q), self.normalise(f"{name}.k_norm", k)
        return q.to(v.dtype), k.to(v.dtype), v

    def probed(self, q: Tensor, k: Tensor, mask: Tensor | None, queries: int) -> Tensor:
        """The share of attention that image tokens pay to words, (B, W, heads, queries)."""
        assert self.probe is not None
        text = k.shape[2] - _whole(queries)
        own = q[:, :, text : text + queries]
        words = self.probe.tokens[..., :text]
        return probe_attention(own, k, words, self.probe.chunk, mask)

    def feed(self, name: str, x: Tensor) -> Tensor:
        gated = F.silu(self.linear(f"{name}.w1", x)) * self.linear(f"{name}.w3", x)
        return self.linear(f"{name}.w2", gated)

    def final_layer(self, x: Tensor, vec: Tensor) -> Tensor:
        scale = 1 + self.linear("final_layer.adaLN_modulation.1", F.silu(vec))
        return self.linear("final_layer.linear", F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale)


Count = TypeVar("Count", int, Tensor)


def _whole(count: Count) -> Count:
    """So many tokens and those that fill them up."""
    return -(-count // MULTIPLE) * MULTIPLE


def _along(length: int, device: torch.device) -> Tensor:
    """Rotations of text tokens (length, HEAD_DIM / 2), which stand at 1, 2, 3... of the first
    axis."""
    position = F.pad(torch.arange(1, length + 1, dtype=torch.float64)[:, None], (0, 2))
    return rotations(position, AXES_DIM, THETA, device)


def _across(starts: Tensor, rows: int, columns: int, device: torch.device) -> Tensor:
    """Rotations of image tokens (B or 1, rows * columns, HEAD_DIM / 2), which stand at (start, row,
    column)."""
    cells = rotations(places(0, rows, columns, 3)[:, 1:], AXES_DIM[1:], THETA, device)
    exponent = torch.arange(0, AXES_DIM[0], 2, dtype=torch.float32, device=device) / AXES_DIM[0]
    angles = starts.float()[:, None] / THETA**exponent
    depth = torch.polar(torch.ones_like(angles), angles)[:, None]
    parts = depth.expand(-1, len(cells), -1), cells.expand(len(starts), -1, -1)
    return torch.cat(parts, dim=-1)
