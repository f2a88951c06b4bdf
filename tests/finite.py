"""Autograd against directional finite differences; it runs in our Python and in the host's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

STEP = 0.005  # length of a step along a direction of entries +-1, in deviations of the tensor


class Rows(NamedTuple):
    """A tensor, and the rows of it that are asked about: q and k of a fused projection."""

    tensor: Tensor
    rows: slice = slice(None)


def randomise(module: nn.Module) -> nn.Module:
    """Fill all parameters, float32, so that every path matters: hosts leave them unset."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data.copy_(noise * (2 / parameter[0].numel()) ** 0.5)
        else:
            parameter.data.copy_(1 + 0.1 * noise)
    return module.requires_grad_(False)


def slopes(forward: Callable[[], Tensor], asked: Mapping[str, Rows]) -> dict[str, list[float]]:
    """A pair for every name: the slope that autograd gives, and the one that differences give.

    The loss is the output (float32) times fixed random weights, summed in float64. The direction is
    random, so that a part that autograd misses cannot hide.
    """
    tensors = [rows.tensor.requires_grad_(True) for rows in asked.values()]
    for tensor in tensors:
        tensor.grad = None
    weights = None

    def loss() -> Tensor:
        nonlocal weights
        out = forward()
        if weights is None:
            generator = torch.Generator().manual_seed(1)
            weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        return (out.double() * weights).sum()

    loss().backward()
    return {name: _pair(loss, rows) for name, rows in asked.items()}


def _pair(loss: Callable[[], Tensor], asked: Rows) -> list[float]:
    tensor, rows = asked.tensor, asked.rows
    generator = torch.Generator().manual_seed(2)
    direction = torch.zeros_like(tensor)
    picked = direction[rows]
    picked.copy_(torch.randint(2, picked.shape, generator=generator) * 2.0 - 1)
    assert tensor.grad is not None, "autograd does not reach it"
    slope = float((tensor.grad.double() * direction.double()).sum())
    length = STEP * float(tensor.detach()[rows].std())
    kept, ends = tensor.detach().clone(), []
    with torch.no_grad():
        for sign in (1, -1):
            tensor.copy_(kept + sign * length * direction)
            ends.append(float(loss()))
        tensor.copy_(kept)
    return [slope, (ends[0] - ends[1]) / (2 * length)]


def outcome(pairs: Mapping[str, list[float]], tolerance: float = 0.02) -> str:
    """ "right" when every pair agrees within ``tolerance`` of the larger, else "wrong"."""

    def agree(a: float, b: float) -> bool:
        return a != 0 and abs(a - b) <= tolerance * max(abs(a), abs(b))

    return "right" if all(agree(*pair) for pair in pairs.values()) else "wrong"


def told(measure: Callable[[], Any]) -> dict[str, Any]:
    """What a measurement of :func:`slopes` comes to: "right", "wrong", or "raises" with why."""
    try:
        pairs = measure()
    except RuntimeError as error:
        return {"outcome": "raises", "why": str(error).splitlines()[0]}
    return {"outcome": outcome(pairs), "slopes": pairs}
