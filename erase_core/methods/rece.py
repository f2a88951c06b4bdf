"""RECE (Gong et al., ECCV 2024, arXiv 2407.12383): what still brings a concept back goes, too.

UCE has edited a matrix W to W'. The input c' that W' answers most nearly as W answered a concept's
token c is the minimum of ``|W' c' - W c|^2 + l |c'|^2``,

    c' = (W'^T W' + l I)^-1 W'^T W c.

It joins the inputs that are sent to the anchor, W' is solved anew, and so on for some rounds. l
(``bound``, a share of the mean eigenvalue of W'^T W') holds c' small and so spares the rest.
The paper sums over the cross-attention's matrices, and each round edits the edited matrix. Here
each text Linear has inputs of its own, and one round takes less of the rest. Every round solves
UCE's least squares from the untouched W for all inputs found so far, so that no round forgets what
must stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import setting
from ..training.result import Result
from . import uce
from .algebra import TINY, ridged
from .base import Method, Task
from .closed import Inputs, edit, spared, thinned

SOURCE = "Gong et al., RECE, ECCV 2024"
ROWS = 256  # of a concept's tokens that a round looks for, evenly apart where there are more


@dataclass(frozen=True)
class ReceSettings(uce.UceSettings):
    """UCE's, less weight on what stays, and the rounds over it."""

    preserve: float = setting(0.5, "weight of what stays", low=0, high=1e6, step=0.01)
    rounds: int = setting(1, "rounds after UCE's own", low=1, high=100)
    bound: float = setting(
        0.1, "weight that holds found inputs small, a share of the mean eigenvalue", low=1e-9
    )


def derive(weight: Tensor, edited: Tensor, rows: Tensor, bound: float) -> Tensor:
    """The inputs (n, in) that ``edited`` (out, in) answers most nearly as ``weight`` answers rows.

    By the smaller side: ``(W'^T W' + l I)^-1 W'^T = W'^T (W' W'^T + l I)^-1``.
    """
    answers = weight @ rows.T
    out, width = edited.shape
    if out >= width:
        factor = torch.linalg.cholesky(ridged(edited.T @ edited, bound))
        return torch.cholesky_solve(edited.T @ answers, factor).T
    gram = edited @ edited.T
    level = bound * gram.diagonal().sum() / width + TINY
    factor = torch.linalg.cholesky(gram + level * torch.eye(out).to(gram))
    return (edited.T @ torch.cholesky_solve(answers, factor)).T


def solve(weight: Tensor, inputs: Inputs, settings: ReceSettings) -> Tensor:
    """D (out, in) for a weight (out, in) in float64."""
    own = len(inputs.concept)  # what stands around a concept does not come back by itself
    old, new = (thinned(rows[:own], ROWS) for rows in (inputs.old, inputs.new))
    found = inputs
    change = uce.solve(weight, found, settings.preserve, settings.ridge)
    for _ in range(settings.rounds):
        back = derive(weight, weight + change, old, settings.bound)
        found = found._replace(old=torch.cat([found.old, back]), new=torch.cat([found.new, new]))
        change = uce.solve(weight, found, settings.preserve, settings.ridge)
    return change


def erase(task: Task, settings: ReceSettings) -> Result:
    """Edit both Linears."""
    return edit(task, settings, lambda w, rows: solve(w, rows, settings))


METHODS = (
    Method(
        "rece",
        "RECE",
        SOURCE,
        erase,
        ReceSettings,
        made="closed form",
        several=spared,
        forward=False,
    ),
)
