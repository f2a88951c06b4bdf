"""SPEED (Li et al., ICLR 2026, arXiv 2503.07392): an edit in the null space of what must stay.

With tokens c of a concept, their anchors a and P the projection off what must stay, D minimises

    mean |D P c - W (a - c)|^2 + ridge |D|^2,   and so   D = W (a - c)^T (X X^T + n ridge I)^-1 X

for n rows c and X, their projections P c. Three steps make P:

1. *Influence filter.* Of all inputs that must stay, those count which the same edit without P
   would move most, ``|D p|^2``: by more than a share of the mean (``influence``; the paper: 1).
2. *Widening.* Each has ``copies`` neighbours ``p + s`` along directions that W hardly reads, which
   pass the same filter. s is noise filtered by ``(I + W^T W / e)^-1``, e a small share of the mean
   eigenvalue, as long as ``spread`` times p.
3. *Exact constraints.* The three main directions of the empty prompt's states stay exactly.

P then removes the main directions of 1 and 2 (singular values above ``threshold`` of the greatest)
and those of 3; a thin QR joins them.

The paper edits the cross-attention's values; Flux has ``txt_in`` and ``vector_in.in_layer``
instead. Its threshold is absolute and its ridge 1, which suits CLIP's lengths: here both are
relative. It takes k-means centres of the empty prompt, but an exact constraint knows their span
alone. It takes CLIP's start token, too (T5 has none), and noise along W's one weakest direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import setting
from ..training.result import Result
from .algebra import TINY, orthonormal, principal, ridge_map, without
from .base import Method, Task
from .closed import AnchoredSettings, Inputs, edit, spared

SOURCE = "Li et al., SPEED, ICLR 2026"
EMPTY = 3  # main directions of the empty prompt
MOST = 2000  # inputs that stay, and as many of their neighbours
WEAK = 1e-3  # of the mean eigenvalue of W^T W: directions far below it count as hardly read


@dataclass(frozen=True)
class SpeedSettings(AnchoredSettings):
    """How the null space is found, and how far the edit goes in it."""

    threshold: float = setting(
        0.05, "directions that stay: singular values above this share", low=1e-6, high=1
    )
    ridge: float = setting(
        1e-4, "weight of the old matrix, a share of the mean square of the inputs", low=1e-9
    )
    influence: float = setting(
        0.1, "inputs count that the plain edit moves by this share of the mean", low=0, high=100
    )
    copies: int = setting(0, "neighbours of each input that stays", low=0, high=100)
    spread: float = setting(0.1, "their distance, a share of the input's length", low=0, high=10)


def solve(weight: Tensor, inputs: Inputs, settings: SpeedSettings, seed: int = 0) -> Tensor:
    """D (out, in) for a weight (out, in) in float64."""
    level = settings.ridge * inputs.old.square().sum(1).mean() * len(inputs.old)
    targets = weight @ (inputs.new - inputs.old).T
    plain = ridge_map(targets, inputs.old, float(level))
    stay = influenced(inputs.kept, plain, settings.influence)
    if settings.copies:
        near = widened(stay, weight, settings.copies, settings.spread, seed)
        stay = torch.cat([stay, influenced(near, plain, settings.influence)])
    exact = principal(inputs.empty, most=EMPTY)
    directions = torch.cat([principal(stay, settings.threshold), exact])
    rows = without(inputs.old, orthonormal(directions))
    return ridge_map(targets, rows, float(level))


def influenced(rows: Tensor, change: Tensor, share: float = 1.0) -> Tensor:
    """The rows (n, in) that a change (out, in) moves by no less than a share of the mean, at most
    MOST: those that it moves most."""
    shift = (rows @ change.T).square().sum(1)
    count = min(MOST, int((shift >= share * shift.mean()).sum()))
    return rows[shift.topk(count).indices]


def widened(rows: Tensor, weight: Tensor, copies: int, spread: float, seed: int) -> Tensor:
    """Neighbours (copies n, in) of rows along directions that a weight (out, in) hardly reads."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(copies * len(rows), rows.shape[1], generator=generator).to(rows)
    weak = hardly_read(noise, weight)
    own = rows.repeat(copies, 1)
    return own + spread * weak * (own.norm(dim=1) / weak.norm(dim=1))[:, None]


def hardly_read(noise: Tensor, weight: Tensor) -> Tensor:
    """``(I + W^T W / e)^-1`` times each row of noise (n, in), by the smaller side of W."""
    out, width = weight.shape
    level = WEAK * weight.square().sum() / width + TINY
    if width <= out:
        factor = torch.linalg.cholesky(weight.T @ weight / level + torch.eye(width).to(weight))
        return torch.cholesky_solve(noise.T, factor).T
    factor = torch.linalg.cholesky(weight @ weight.T + level * torch.eye(out).to(weight))
    return noise - torch.cholesky_solve(weight @ noise.T, factor).T @ weight


def erase(task: Task, settings: SpeedSettings) -> Result:
    """Edit both Linears."""
    return edit(task, settings, lambda w, rows: solve(w, rows, settings, task.seed))


METHODS = (
    Method(
        "speed",
        "SPEED",
        SOURCE,
        erase,
        SpeedSettings,
        made="closed form",
        product=True,
        several=spared,
        forward=False,
    ),
)
