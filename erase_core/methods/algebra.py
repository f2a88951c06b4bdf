"""Linear algebra of the closed forms, for matrices with thousands of columns.

Whatever has a choice works on the smaller side: with n rows of width d, the (n, n) Gram matrix
where n < d. All is computed in the dtype that comes in, float64 as a rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30  # the ridge of a matrix of zeros


def ridged(moments: Tensor, ridge: float) -> Tensor:
    """``moments + ridge mean(diagonal) I``, (d, d)."""
    level = ridge * moments.diagonal().mean() + TINY
    return moments + level * torch.eye(len(moments)).to(moments)


def solve_right(left: Tensor, rows: Tensor, moments: Tensor) -> Tensor:
    """``left rows moments^-1`` for (o, n), (n, d) and a positive definite (d, d)."""
    factor = torch.linalg.cholesky(moments)
    if len(rows) < len(left):
        return left @ torch.cholesky_solve(rows.T, factor).T
    return torch.cholesky_solve((left @ rows).T, factor).T


def ridge_map(targets: Tensor, rows: Tensor, ridge: float) -> Tensor:
    """The D (o, d) that minimises ``|D rows^T - targets|^2 + ridge |D|^2``, targets (o, n).

    ``D = targets (rows rows^T + ridge I)^-1 rows``, with d in the place of n where d is less.
    """
    identity = torch.eye(min(rows.shape)).to(rows)
    if len(rows) <= rows.shape[1]:
        gram = torch.linalg.cholesky(rows @ rows.T + ridge * identity)
        return torch.cholesky_solve(targets.T, gram).T @ rows
    moments = torch.linalg.cholesky(rows.T @ rows + ridge * identity)
    return torch.cholesky_solve((targets @ rows).T, moments).T


def principal(rows: Tensor, threshold: float = 0.0, most: int | None = None) -> Tensor:
    """Orthonormal directions (r, d) that rows (n, d) lie along: those whose singular value exceeds
    ``threshold`` times the greatest, at most ``most``, the greatest first."""
    tall = len(rows) > rows.shape[1]
    values, vectors = torch.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
    values, vectors = values.flip(0), vectors.flip(1)
    floor = max(threshold, 1e-6) ** 2 * values[0]  # eigenvalues below it are rounding
    count = min(int((values > floor).sum()), len(values) if most is None else most)
    if tall:
        return vectors[:, :count].T
    return vectors[:, :count].T @ rows / values[:count].sqrt()[:, None]


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span what (n, d) rows span, n <= d (thin QR)."""
    return torch.linalg.qr(rows.T).Q.T


def without(rows: Tensor, directions: Tensor) -> Tensor:
    """Rows (n, d) less their parts along orthonormal directions (r, d)."""
    return rows - (rows @ directions.T) @ directions
