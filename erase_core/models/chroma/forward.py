"""One forward pass over any Chroma tree: Flux's blocks, modulated by one network from the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..base import Adapter, Conditioning, Output, Probe
from ..flux1.forward import Pass, compute_dtype, normalise, over_all, sinusoid
from .config import NUMBERS

APPROXIMATOR = "distilled_guidance_layer"


def chroma_forward(
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
    """Run a Chroma tree; parameters as in :func:`~erase_core.models.flux1.forward.flux_forward`.

    ``guidance`` is not looked at: the approximator is always given 0, and a negative prompt is a
    pass of its own. Text tokens that ``cond.mask`` leaves out are seen by nobody.
    """
    cond, probe = trimmed(cond, probe)
    mask = None if cond.mask is None else over_all(cond.mask, latents)
    run = ChromaPass(tree, eraser, probe, checkpoint, mask)
    dtype = compute_dtype(tree, latents)
    vec = run.modulations(sigma.expand(len(latents)), dtype)
    return run.predict(latents, cond.context, vec, dtype)


def trimmed(cond: Conditioning, probe: Probe | None) -> tuple[Conditioning, Probe | None]:
    """The prompts and a probe of them without the tokens that no row reads: text has no places, so
    that nothing else changes. The mask is None where every row reads all that is left."""
    if cond.mask is None:
        return cond, probe
    read = cond.mask.any(0)
    mask = cond.mask[:, read]
    kept = replace(cond, context=cond.context[:, read], mask=None if mask.all() else mask)
    if probe is not None:
        probe = replace(probe, tokens=probe.tokens[..., read.to(probe.tokens.device)])
    return kept, probe


def modulation_rows(depth: int, singles: int) -> dict[str, int]:
    """Where each block's rows begin among the approximator's, by the name of Flux's own modulation
    there. By "": how many rows there are in all."""
    places, row = {}, 0
    for name, parts in (
        *((f"single_blocks.{index}.modulation.lin", 3) for index in range(singles)),
        *((f"double_blocks.{index}.img_mod.lin", 6) for index in range(depth)),
        *((f"double_blocks.{index}.txt_mod.lin", 6) for index in range(depth)),
        ("final_layer.adaLN_modulation.1", 2),
        ("", 0),
    ):
        places[name] = row
        row += parts
    return places


class ChromaPass(Pass):
    """A pass whose blocks are modulated by rows of one tensor."""

    def modulations(self, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        """The approximator's answer for every row, (B, rows, hidden), to the time, guidance 0 and
        the place of the row."""
        depth, singles = len(self.tree.double_blocks), len(self.tree.single_blocks)
        self.places = modulation_rows(depth, singles)
        rows = torch.arange(self.places[""], device=sigma.device)
        given = torch.cat([sinusoid(t, NUMBERS // 2) for t in (sigma, 0 * sigma)], dim=1)
        given = given[:, None].expand(-1, len(rows), -1)
        places = sinusoid(rows, NUMBERS).expand(len(sigma), -1, -1)
        x = self.linear(f"{APPROXIMATOR}.in_proj", torch.cat([given, places], dim=-1).to(dtype))
        for index in range(len(self.tree.get_submodule(f"{APPROXIMATOR}.layers"))):
            norm = self.tree.get_submodule(f"{APPROXIMATOR}.norms.{index}")
            x = x + self.embed(f"{APPROXIMATOR}.layers.{index}", normalise(norm, x).to(dtype))
        return self.linear(f"{APPROXIMATOR}.out_proj", x)

    def modulation(self, name: str, vec: Tensor, parts: int) -> Sequence[Tensor]:
        """The rows of a block."""
        start = self.places[name]
        return vec[:, start : start + parts].split(1, dim=1)
