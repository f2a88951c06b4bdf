"""Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761), in closed form.

The edited Linears are where text enters Flux: ``txt_in``, which reads T5's tokens, and
``vector_in.in_layer``, which reads CLIP's pooled vector. There are pairs (c, a) of an input that
names a concept and the same input with the anchor, and inputs p that must stay. The new weight W'
minimises

    mean |W' c - W a|^2 + preserve mean |W' p - W p|^2 + ridge |W' - W|^2

and so, for ``D = W' - W`` and C_c, C_p the second moments ``mean c c^T`` and ``mean p p^T``,

    D = W mean (a - c) c^T (C_c + preserve C_p + ridge I)^-1.

A concept's tokens c are sent to the mean of the anchor's tokens in the same sentence. The tokens
around them are sent to those around the anchor, and weigh as much, all together (``context``): T5
reads both ways, so that they, too, speak of the concept. The paper sends the concept's alone.
docs/results/tuning.md says how the settings were found.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..settings import setting
from ..training.result import Result
from .algebra import ridged, solve_right
from .base import Cost, Method, Task
from .closed import AnchoredSettings, Inputs, edit, spared

SOURCE = "Gandikota et al., UCE, WACV 2024"


def solve(weight: Tensor, inputs: Inputs, preserve: float, ridge: float) -> Tensor:
    """D (out, in) for a ``weight`` (out, in), computed in float64; ``ridge`` is a share of the mean
    second moment."""
    old, new, kept = (rows.double() for rows in inputs[:3])
    moments = old.T @ old / len(old) + preserve * kept.T @ kept / len(kept)
    wanted = weight.double() @ (new - old).T / len(old)
    return solve_right(wanted, old, ridged(moments, ridge))


@dataclass(frozen=True)
class UceSettings(AnchoredSettings):
    """What weighs how much in the least squares."""

    preserve: float = setting(2.0, "weight of what stays", low=0, high=1e6, step=0.01)
    ridge: float = setting(
        1e-2, "weight of the old matrix, a share of the mean second moment", low=1e-9, high=1e6
    )


def erase(task: Task, settings: UceSettings) -> Result:
    """Edit both Linears."""
    return edit(task, settings, lambda w, rows: solve(w, rows, settings.preserve, settings.ridge))


METHODS = (
    Method(
        "uce",
        "UCE",
        SOURCE,
        erase,
        UceSettings,
        made="closed form",
        product=True,
        several=spared,
        forward=False,
        cost=Cost(1, 0.83),
    ),
)
