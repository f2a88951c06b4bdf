"""One forward pass over any FLUX.2 tree: Flux's blocks, those of a kind modulated alike."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Adapter, Conditioning, Output, Probe
from ..flux1.forward import Pass, compute_dtype, places, rotations, sinusoid
from .config import AXES_DIM, THETA

TEXT_AXIS = 3
# What modulates the blocks of a kind: its Linear, by the name of Flux's own modulation there, and
# how many shifts, scales and gates it gives.
SHARED = {
    r"double_blocks\.\d+\.img_mod\.lin": ("double_stream_modulation_img.lin", 6),
    r"double_blocks\.\d+\.txt_mod\.lin": ("double_stream_modulation_txt.lin", 6),
    r"single_blocks\.\d+\.modulation\.lin": ("single_stream_modulation.lin", 3),
    r"final_layer\.adaLN_modulation\.1": ("final_layer.adaLN_modulation.1", 2),
}


def flux2_forward(
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
    """Run a FLUX.2 tree; parameters as in :func:`~erase_core.models.flux1.forward.flux_forward`.

    ``guidance`` is not looked at: a negative prompt is a pass of its own. All text tokens are read,
    the padding among them.
    """
    run = Flux2Pass(tree, eraser, probe, checkpoint)
    dtype = compute_dtype(tree, latents)
    vec = run.modulations(sigma.expand(len(latents)), dtype)
    return run.predict(latents, cond.context, vec, dtype)


class Flux2Pass(Pass):
    """A pass whose blocks are modulated by rows of one tensor, (B, 17, hidden)."""

    def modulations(self, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        """All shifts, scales and gates at a time, in the order of SHARED."""
        vec = F.silu(self.embed("time_in", sinusoid(sigma).to(dtype)))
        rows = [self.linear(name, vec) for name, _ in SHARED.values()]
        return torch.cat([row.unflatten(-1, (-1, vec.shape[-1])) for row in rows], dim=1)

    def modulation(self, name: str, vec: Tensor, parts: int) -> Sequence[Tensor]:
        """The rows of a block's kind."""
        start = 0
        for pattern, (_, count) in SHARED.items():
            if re.fullmatch(pattern, name):
                break
            start += count
        return vec[:, start : start + parts].split(1, dim=1)

    def tokens(self, latents: Tensor) -> tuple[Tensor, int, int]:
        """Every latent is a token."""
        rows, columns = latents.shape[2:]
        return latents.flatten(2).transpose(1, 2), rows, columns

    def picture(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        return tokens.transpose(1, 2).unflatten(-1, (rows, columns))

    def rope(self, text: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """Text tokens sit one behind another on an axis of their own."""
        position = places(text, rows, columns, len(AXES_DIM))
        position[:text, TEXT_AXIS] = torch.arange(text)
        return rotations(position, AXES_DIM, THETA, device)

    def activate(self, x: Tensor) -> Tensor:
        """The first half, through SiLU, gates the second."""
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
