"""Tells when a run has gone wrong, and keeps the last weights from before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ...erasers.lora import EraserLora

SNAPSHOT_EVERY = 10  # iterations
SMOOTHING = 0.95  # of the running means, some 20 iterations
WORSE = 3.0  # times as far off as an eraser that does nothing: given up


class Guard:
    """Watches the losses of a run.

    A loss that is not finite ends the run. So does a velocity loss whose smoothed value is above
    ``WORSE`` times ``idle``, the mean of Eq. 2 for a LoRA that does nothing. Then what is to stay
    is farther off than the concept ever had to go. Velocity losses are Eq. 2, and Eq. 4 where its
    target is the base model's. With ``idle`` None only what is not finite counts.
    """

    def __init__(self, lora: EraserLora, idle: float | None, watched: Iterable[str]) -> None:
        self.idle = idle
        self.means = dict.fromkeys(watched, 0.0)
        self._lora = lora
        self._good = self._candidate = self._copy()

    def before(self, step: int) -> None:
        """Call before iteration ``step``: now and then the weights are copied."""
        if step % SNAPSHOT_EVERY == 0:
            self._candidate = self._copy()

    def healthy(self, losses: Mapping[str, float]) -> bool:
        """Whether an iteration with these losses may stand; weights copied before it are good."""
        if not all(math.isfinite(value) for value in losses.values()):
            return False
        for name in self.means:
            fresh = losses.get(name, 0.0)
            self.means[name] = SMOOTHING * self.means[name] + (1 - SMOOTHING) * fresh
        idle = math.inf if self.idle is None else self.idle
        worst = max(self.means.values(), default=0.0)
        if worst <= idle:
            self._good = self._candidate
        return worst <= WORSE * idle

    def finite(self) -> bool:
        """Whether every parameter is finite."""
        return all(bool(p.isfinite().all()) for p in self._lora.parameters())

    def restore(self) -> None:
        """Put the last good weights back."""
        self._lora.load_state(self._good)

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._lora.state().items()}


def idle_loss(target: Tensor, null: Tensor, eta: float) -> float:
    """Mean of Eq. 2 for a LoRA that does nothing: ``(1 + eta)^2 mean |v_o(c_un) - v_o(null)|^2``.

    ``target`` and ``null`` are the buffer's velocities (R, S, C, h, w).
    """
    squares = [(t.float() - n.float()).square().mean() for t, n in zip(target, null, strict=True)]
    return (1 + eta) ** 2 * torch.stack(squares).mean().item()
