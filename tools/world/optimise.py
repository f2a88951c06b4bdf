"""Muon for matrices inside blocks, AdamW for everything else, and how fast they learn.

Muon multiplies in bfloat16 as torch's own does, but in float32 on a CPU without instructions for
it, which is sixty times slower (33 s a step were measured). One with them is three times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 4


def orthogonal(update: Tensor) -> Tensor:
    """A matrix with about the singular vectors of ``update`` and singular values near 1.

    Newton-Schulz as in Muon, on the small Gram matrix alone: with ``G = X X^T`` every round
    multiplies X by ``P = a + b G + c G^2`` from the left, and G by ``P^2``.
    """
    tall = update.shape[0] > update.shape[1]
    x = (update.T if tall else update).to(precision(update.device.type))
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    a, b, c = NEWTON_SCHULZ
    whole = None
    for turn in range(ROUNDS):
        step = b * gram + c * (gram @ gram)
        step.diagonal().add_(a)
        whole = step if whole is None else step @ whole
        if turn < ROUNDS - 1:
            gram = step @ gram @ step
    x = whole @ x
    return (x.T if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, at AdamW's scale (0.2 a root mean square)."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(state["momentum"], group["momentum"]))
                scale = 0.2 * max(p.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)


def precision(kind: str) -> torch.dtype:
    """bfloat16 wherever a device of this kind has instructions for it, else float32."""
    able = kind != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if able else torch.float32


def mixed(device: str = "cpu") -> torch.autocast:
    """Products in the device's :func:`precision`."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision(kind) == torch.bfloat16)


def make_optimisers(model: nn.Module, lr: float) -> dict[str, torch.optim.Optimizer]:
    """Both optimisers at one learning rate; frozen parameters are left out."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = any(part in name for part in ("block", "layers")) and "bias" not in name
            plain = inner and parameter.ndim == 2 and "mod" not in name
            (matrices if plain else others).append(parameter)
    return {
        "adamw": torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01),
        "muon": Muon(matrices, lr=lr),
    }


def learning_rate(
    step: int, steps: int, peak: float, warmup: int = 100, hold: float = 0.6
) -> float:
    """Linear warm-up, constant for a share ``hold`` of the steps, then straight down to 3 %."""
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (steps - step) / (steps - hold * steps)
    return peak * max(0.03, min(1.0, left))
