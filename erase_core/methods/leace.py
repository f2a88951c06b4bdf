"""LEACE (Belrose et al., NeurIPS 2023, arXiv 2306.03819): no linear reader finds the concept.

Of inputs x with labels z (one for each concept: whether x is a token of it), with mean m,
covariance ``Sxx`` and cross-covariance ``S = Sxz``, the least change after which x and z have no
covariance is

    r(x) = x - B (x - m),   B = S (S^T Sxx^-1 S)^-1 S^T Sxx^-1,

which is the paper's ``W^+ P W`` with whitening ``W = Sxx^-1/2``, written without a square root.
A Linear ``V x + b`` that reads r(x) instead of x is ``V (I - B) x + b + V B m``: a change of rank
one for each concept, and one of the bias (left out where the Linear has none).

Two choices are ours. What stays outnumbers a concept's tokens as it happens, so their weight is a
setting (``share``, of all concepts together): the less, the nearer m is to what stays. And Sxx gets
a ridge; ``B S = S`` holds with any, so that the concept is gone exactly, and only how little else
changes depends on it. No anchor is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..settings import setting
from ..training.result import Result
from .algebra import ridged
from .base import Method, Task
from .closed import Change, ClosedSettings, Inputs, edit, spared

SOURCE = "Belrose et al., LEACE, NeurIPS 2023"


@dataclass(frozen=True)
class LeaceSettings(ClosedSettings):
    """What the mean and the covariance are taken of."""

    share: float = setting(0.1, "share of the concepts among all inputs", low=1e-4, high=0.99)
    ridge: float = setting(1e-3, "added to the covariance, a share of its mean", low=1e-9)


class Projection(NamedTuple):
    """``B`` (in, in) as ``left`` (in, k) times ``right`` (k, in), and the mean m (in,)."""

    left: Tensor
    right: Tensor
    mean: Tensor


def fit(inputs: Inputs, share: float, ridge: float) -> Projection:
    """B and m, in float64."""
    labels = torch.nn.functional.one_hot(inputs.concept.long()).to(inputs.old)
    counts = labels.sum(0)
    weights = torch.cat(
        [
            share / len(counts) / counts[inputs.concept.long()],
            torch.full((len(inputs.kept),), (1 - share) / len(inputs.kept)).to(inputs.kept),
        ]
    )
    rows = torch.cat([inputs.old, inputs.kept])
    mean = weights @ rows
    centred = rows - mean
    covariance = (centred * weights[:, None]).T @ centred
    cross = (centred[: len(labels)] * weights[: len(labels), None]).T @ labels
    whitened = torch.cholesky_solve(cross, torch.linalg.cholesky(ridged(covariance, ridge)))
    return Projection(cross, torch.linalg.solve(cross.T @ whitened, whitened.T), mean)


def solve(weight: Tensor, inputs: Inputs, settings: LeaceSettings) -> Change:
    """The change of weight (out, in) and bias (out,), in float64."""
    found = fit(inputs, settings.share, settings.ridge)
    change = -(weight @ found.left) @ found.right
    return Change(change, -change @ found.mean)


def erase(task: Task, settings: LeaceSettings) -> Result:
    """Edit both Linears."""
    return edit(task, settings, lambda w, rows: solve(w, rows, settings))


METHODS = (
    Method(
        "leace",
        "LEACE",
        SOURCE,
        erase,
        LeaceSettings,
        made="closed form",
        several=spared,
        forward=False,
    ),
)
