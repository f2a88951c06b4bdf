"""What an eraser does to pictures it should leave alone: distances over the recogniser's features.

The recogniser stands in for the networks of ImageNet that the usual measures look through; the
formulas are theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..judges.recogniser import RecogniserJudge

BATCH = 50
EPSILON = 1e-10  # keeps silent places from dividing by zero, as in LPIPS


@torch.no_grad()
def feature_distance(judge: RecogniserJudge, before: Tensor, after: Tensor) -> Tensor:
    """How differently the recogniser sees two pictures, (N,), for N pairs (N, 128, 128, 3) uint8.

    ``mean_l mean_hw || y_l - y'_l ||^2`` with activations of unit length over the channels: LPIPS
    without learned weights (Zhang et al., CVPR 2018, Eq. 1 with w = 1).
    """
    parts = []
    for a, b in zip(before.split(BATCH), after.split(BATCH), strict=True):
        pairs = zip(judge.layers(a), judge.layers(b), strict=True)
        squares = [(_unit(y) - _unit(z)).square().sum(1).mean((1, 2)) for y, z in pairs]
        parts.append(torch.stack(squares).mean(0))
    return torch.cat(parts)


@torch.no_grad()
def features(judge: RecogniserJudge, pictures: Tensor) -> Tensor:
    """The body's last activations averaged over space, (N, C), for :func:`frechet`."""
    return judge.features(pictures.split(BATCH))


def frechet(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to features (N, C) and (M, C): FID's formula.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, Heusel et al., NeurIPS 2017. The trace
    of the root is that of ``(S_a^(1/2) S_b S_a^(1/2))^(1/2)``, which is symmetric.
    """
    a, b = features_a.double(), features_b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = _root(cov_a)
    cross = _root(root @ cov_b @ root).trace()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def _unit(y: Tensor) -> Tensor:
    return y / (y.norm(dim=1, keepdim=True) + EPSILON)


def _root(symmetric: Tensor) -> Tensor:
    """The root of a positive semi-definite matrix; eigenvalues below 0 are rounding."""
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
