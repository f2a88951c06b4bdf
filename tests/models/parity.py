"""Numbers to compare two implementations by."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def gradients(
    loss: Tensor, module: nn.Module, *leaves: Tensor, unused: bool = False
) -> dict[str, Tensor]:
    """Of all parameters and leaves; zeros where ``unused`` ones may be among them."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, [*parameters, *leaves], materialize_grads=unused)
    return dict(zip([*names, "latents", "context"], found, strict=True))


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and b.norm() > 0
    return float((a - b).detach().norm() / b.detach().norm())
