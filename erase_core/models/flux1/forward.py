"""One forward pass over any module tree with BFL names: trainable, probed, adapted.

The tree's own submodules do the matrix products, so quantised and cast weights keep working. All
else is written here without in-place operations, because the hosts' own forwards cannot be
differentiated. A tree is read, never changed: adapters come in as an argument, not as hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from ..attention import probe_attention
from ..base import Adapter, Conditioning, Output, Probe
from .config import AXES_DIM, HEAD_DIM

THETA = 10_000


def velocity(
    tree: nn.Module,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | Tensor | None = None,
    *,
    eraser: Adapter | None = None,
    checkpoint: bool = False,
) -> Tensor:
    """Predict ``v = eps - x_0`` at ``latents`` (B, 16, h, w) and ``sigma`` (B,) in [0, 1].

    Parameters as in :func:`flux_forward`. Returns a tensor like ``latents`` in float32 or the
    latents' own wider type.
    """
    out = flux_forward(tree, latents, sigma, cond, guidance, eraser=eraser, checkpoint=checkpoint)
    assert out.velocity is not None
    return out.velocity


def flux_forward(
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
    """Run a Flux tree.

    Parameters
    ----------
    tree
        Modules with BFL names: ours, ComfyUI's, BFL's.
    latents
        x_t, (B, 16, h, w); odd sizes are padded to whole patches and cropped again.
    sigma
        Noise level t, (B,) or scalar, 1 = noise.
    cond
        Encoded prompts, B rows.
    guidance
        Guidance input of distilled models, a number or (B,); ignored by trees without one.
    eraser
        Adapter applied to the tree's Linear modules by name.
    probe
        Attention to collect on the way.
    checkpoint
        Recompute each block in the backward pass instead of keeping its activations.
    """
    run = Pass(tree, eraser, probe, checkpoint)
    dtype = compute_dtype(tree, latents)
    assert cond.pooled is not None, "FLUX.1 reads CLIP's pooled vector"
    vec = run.vector(sigma.expand(len(latents)), guidance, cond.pooled.to(dtype))
    return run.predict(latents, cond.context, vec, dtype)


def patchify(latents: Tensor) -> tuple[Tensor, int, int]:
    """(B, C, h, w) -> (B, rows * columns, 4 C), with the number of rows and columns."""
    latents = F.pad(latents, (0, latents.shape[3] % 2, 0, latents.shape[2] % 2), mode="circular")
    batch, channels, height, width = latents.shape
    rows, columns = height // 2, width // 2
    patches = latents.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, rows * columns, channels * 4), rows, columns


def unpatchify(patches: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`patchify`, padding included."""
    batch, _, width = patches.shape
    latents = patches.reshape(batch, rows, columns, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, width // 4, rows * 2, columns * 2)


def channels_last(patches: Tensor) -> Tensor:
    """Patches (B, N, 4 C) of :func:`patchify`, channels first, with channels last."""
    return patches.unflatten(-1, (-1, 4)).transpose(-1, -2).flatten(-2)


def channels_first(patches: Tensor) -> Tensor:
    """The inverse of :func:`channels_last`."""
    return patches.unflatten(-1, (4, -1)).transpose(-1, -2).flatten(-2)


def sinusoid(t: Tensor, dim: int = 256) -> Tensor:
    """Embed t (B,) in [0, 1], times 1000, as (B, dim) cosines and sines in float32."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = (1000.0 * t.float())[:, None] * torch.exp(-math.log(THETA) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_table(text: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Rotations as unit complex numbers (text + rows * columns, HEAD_DIM / 2), complex64.

    Text tokens sit at (0, 0, 0), image tokens at (0, row, column); each axis has its own band of
    channels (16, 56, 56).
    """
    return rotations(places(text, rows, columns, len(AXES_DIM)), AXES_DIM, THETA, device)


def places(text: int, rows: int, columns: int, axes: int) -> Tensor:
    """(text + rows * columns, axes) float64 in main memory, for MPS has none: 0 for text tokens,
    (0, row, column, 0...) for those of the image."""
    position = torch.zeros(text + rows * columns, axes, dtype=torch.float64)
    cells = torch.arange(rows * columns)
    position[text:, 1] = cells // columns
    position[text:, 2] = cells % columns
    return position


def rotations(
    position: Tensor, widths: Sequence[int], theta: float, device: torch.device
) -> Tensor:
    """Places (T, axes) as unit complex numbers (T, HEAD_DIM / 2), complex64; each axis has a band
    of channels as wide as ``widths`` says."""
    bands = []
    for axis, dim in enumerate(widths):
        exponent = torch.arange(0, dim, 2, dtype=torch.float64) / dim
        bands.append(position[:, axis, None] / theta**exponent)
    angles = torch.cat(bands, dim=-1)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn neighbouring channel pairs of x (B, heads, T, HEAD_DIM) by their angles."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    turned = torch.view_as_complex(wide.unflatten(-1, (-1, 2))) * rope
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def compute_dtype(tree: nn.Module, latents: Tensor, norms: str = "query_norm") -> torch.dtype:
    """The dtype activations run in: the tree's ``compute_dtype`` if it has one, else that of the
    ``norms``, by a part of their names, which no quantisation touches."""
    told = getattr(tree, "compute_dtype", None)
    if told is not None:
        return told
    norm = next(p for n, p in tree.named_parameters() if norms in n)
    return norm.dtype if norm.is_floating_point() and norm.itemsize > 1 else latents.dtype


def over_all(mask: Tensor, latents: Tensor) -> Tensor:
    """A mask of text tokens (B, L) as one of all tokens as keys, (B, 1, 1, L + Q)."""
    rows, columns = (-(-side // 2) for side in latents.shape[2:])
    image = mask.new_ones(len(mask), rows * columns)
    return torch.cat([mask, image], dim=1)[:, None, None]


def layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """A q or k norm, whose weight is named differently from tree to tree, in the weight's dtype."""
    weight = next(norm.parameters(), None)
    return norm(x if weight is None or weight.dtype.itemsize == 1 else x.to(weight.dtype))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return layer_norm(x) * (1 + scale) + shift


class Pass:
    """One pass: the tree, its adapter and its probe, and the blocks computed with them.

    ``mask`` (B, 1, 1, T) bool says which of the T tokens, text first, are seen; None for all.
    Families of the same blocks change :meth:`modulation`, and how tokens are made and placed.
    ``joint`` is the tree's list of blocks with a text stream.
    """

    joint: ClassVar[str] = "double_blocks"

    def __init__(
        self,
        tree: nn.Module,
        eraser: Adapter | None,
        probe: Probe | None,
        checkpoint: bool,
        mask: Tensor | None = None,
    ) -> None:
        self.tree: Any = tree
        self.eraser = eraser
        self.probe = probe
        self.checkpoint = checkpoint and torch.is_grad_enabled()
        self.mask = mask

    def predict(self, latents: Tensor, context: Tensor, vec: Tensor, dtype: torch.dtype) -> Output:
        """The pass at latents (B, C, h, w) with text states (B, L, D) and what modulates the
        blocks, computed in ``dtype``."""
        height, width = latents.shape[2:]
        img, rows, columns = self.tokens(latents.to(dtype))
        img = self.linear("img_in", img)
        txt = self.linear("txt_in", context.to(dtype))
        rope = self.rope(txt.shape[1], rows, columns, latents.device)
        img, txt, attention = self.double_blocks(img, txt, vec, rope)
        if self.probe is not None and self.probe.stop:
            return Output(None, attention)
        img = self.single_blocks(img, txt, vec, rope)
        img = self.final_layer(img, vec)
        predicted = self.picture(img, rows, columns)[:, :, :height, :width]
        return Output(predicted.to(torch.promote_types(latents.dtype, torch.float32)), attention)

    def tokens(self, latents: Tensor) -> tuple[Tensor, int, int]:
        """The image tokens of latents, row by row, with the number of rows and columns."""
        return patchify(latents)

    def picture(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """The inverse of :meth:`tokens`, padding included."""
        return unpatchify(tokens, rows, columns)

    def rope(self, text: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """Rotations of all tokens, as :func:`rope_table` has them."""
        return rope_table(text, rows, columns, device)

    def activate(self, x: Tensor) -> Tensor:
        """What an MLP does between its Linears."""
        return F.gelu(x, approximate="tanh")

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Module ``name`` applied to x, with the adapter's change."""
        y = self.tree.get_submodule(name)(x)
        return y if self.eraser is None else self.eraser(name, x, y)

    def embed(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.out_layer", F.silu(self.linear(f"{name}.in_layer", x)))

    def vector(self, sigma: Tensor, guidance: float | Tensor | None, pooled: Tensor) -> Tensor:
        """The modulation vector (B, 1, hidden) from time, guidance and pooled text."""
        vec = self.embed("time_in", sinusoid(sigma).to(pooled.dtype))
        guided = getattr(self.tree, "guidance_in", None)
        if guidance is not None and guided is not None and not isinstance(guided, nn.Identity):
            g = torch.as_tensor(guidance, dtype=torch.float32, device=sigma.device)
            vec = vec + self.embed("guidance_in", sinusoid(g.expand_as(sigma)).to(pooled.dtype))
        vec = vec + self.embed("vector_in", pooled)
        return F.silu(vec)[:, None]

    def modulation(self, name: str, vec: Tensor, parts: int) -> Sequence[Tensor]:
        """Shifts, scales and gates of a block, ``parts`` of (B, 1, hidden) by ``name``."""
        return self.linear(name, vec).chunk(parts, dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over all tokens that are seen: (B, heads, T, HEAD_DIM) -> (B, T, hidden)."""
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        return mixed.transpose(1, 2).flatten(2)

    def block(self, function: Callable[..., Any], *args: Any) -> Any:
        if self.checkpoint:
            return activation_checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def double_blocks(
        self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """All blocks with a text stream, and what was probed; ``rope`` None where places are told
        otherwise."""
        wanted = self.probe.blocks if self.probe else ()
        last = max(wanted) if self.probe and self.probe.stop else None
        found: dict[int, Tensor] = {}
        for index in range(len(getattr(self.tree, self.joint))):
            img, txt, attention = self.block(
                self.double_block, index, img, txt, vec, rope, index in wanted, index == last
            )
            if index in wanted:
                found[index] = attention
            if index == last:
                break
        stacked = torch.stack([found[index] for index in wanted], dim=1) if wanted else None
        return img, txt, stacked

    def double_block(
        self,
        index: int,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        rope: Tensor,
        probed: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One block; the ``last`` one of a pass that stops ends with its attention."""
        name = f"{self.joint}.{index}"
        streams = {"txt": txt, "img": img}
        mods = {s: self.modulation(f"{name}.{s}_mod.lin", vec, 6) for s in streams}
        q, k, v = (
            torch.cat(parts, dim=2)
            for parts in zip(
                *(self.stream_qkv(f"{name}.{s}_attn", x, mods[s]) for s, x in streams.items()),
                strict=True,
            )
        )
        q, k = rotate(q, rope), rotate(k, rope)
        length = txt.shape[1]
        attention = None
        if probed and self.probe:
            tokens, chunk = self.probe.tokens, self.probe.chunk
            attention = probe_attention(q[:, :, length:], k, tokens, chunk, self.mask)
        if last:
            return img, txt, attention
        mixed = self.attend(q, k, v)
        halves = {"txt": mixed[:, :length], "img": mixed[:, length:]}
        txt, img = (self.stream_out(name, s, x, halves[s], mods[s]) for s, x in streams.items())
        return img, txt, attention

    def stream_qkv(self, name: str, x: Tensor, mod: Sequence[Tensor]) -> Sequence[Tensor]:
        """Normalised q, k and plain v of one stream, each (B, heads, T, HEAD_DIM)."""
        qkv = self.linear(f"{name}.qkv", modulate(x, mod[0], mod[1]))
        return self.heads(f"{name}.norm", qkv)

    def heads(self, norm: str, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        q = self.normalise(f"{norm}.query_norm", q)
        k = self.normalise(f"{norm}.key_norm", k)
        return q.to(v.dtype), k.to(v.dtype), v

    def normalise(self, name: str, x: Tensor) -> Tensor:
        """A q or k norm, computed again for its backward pass: where it is made of simple
        operations autograd would keep float32 copies of x, two of each."""
        norm = self.tree.get_submodule(name)
        if self.checkpoint or not torch.is_grad_enabled():
            return normalise(norm, x)
        return activation_checkpoint(
            normalise, norm, x, use_reentrant=False, preserve_rng_state=False
        )

    def stream_out(
        self, name: str, stream: str, x: Tensor, mixed: Tensor, mod: Sequence[Tensor]
    ) -> Tensor:
        x = x + mod[2] * self.linear(f"{name}.{stream}_attn.proj", mixed)
        mlp = f"{name}.{stream}_mlp"
        inner = self.activate(self.linear(f"{mlp}.0", modulate(x, mod[3], mod[4])))
        return x + mod[5] * self.linear(f"{mlp}.2", inner)

    def single_blocks(self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor) -> Tensor:
        x = torch.cat([txt, img], dim=1)
        for index in range(len(self.tree.single_blocks)):
            x = self.block(self.single_block, index, x, vec, rope)
        return x[:, txt.shape[1] :]

    def single_block(self, index: int, x: Tensor, vec: Tensor, rope: Tensor) -> Tensor:
        name = f"single_blocks.{index}"
        shift, scale, gate = self.modulation(f"{name}.modulation.lin", vec, 3)
        inner = self.linear(f"{name}.linear1", modulate(x, shift, scale))
        qkv, mlp = inner.split([3 * x.shape[-1], inner.shape[-1] - 3 * x.shape[-1]], dim=-1)
        q, k, v = self.heads(f"{name}.norm", qkv)
        mixed = self.attend(rotate(q, rope), rotate(k, rope), v)
        out = torch.cat([mixed, self.activate(mlp)], dim=-1)
        return x + gate * self.linear(f"{name}.linear2", out)

    def final_layer(self, img: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.modulation("final_layer.adaLN_modulation.1", vec, 2)
        return self.linear("final_layer.linear", modulate(img, shift, scale))
