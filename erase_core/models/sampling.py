"""Sampling as ComfyUI's KSampler does it: schedule "simple", CPU noise, sampler "euler"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EraseError


@dataclass(frozen=True)
class Latents:
    """How latents lie over a picture: of ``channels``, one for ``scale`` x ``scale`` pixels;
    ``patch`` x ``patch`` of them are a token of the transformer."""

    channels: int
    scale: int
    patch: int

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a picture's latents; ``height`` and ``width`` in pixels, as below."""
        return self.channels, height // self.scale, width // self.scale

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a picture's tokens; those at the edge may be padded."""
        _, rows, columns = self.shape(height, width)
        return -(-rows // self.patch), -(-columns // self.patch)

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a picture, the Q of a :class:`~erase_core.models.base.Probe`."""
        return math.prod(self.grid(height, width))

    def noise(self, seeds: Sequence[int], height: int, width: int) -> Tensor:
        """Start latents as KSampler draws them, one for each seed: (N, C, h, w) float32 on the CPU.

        EraseError unless both sides are positive multiples of ``scale``.
        """
        if min(height, width) < self.scale or height % self.scale or width % self.scale:
            raise EraseError(
                f"A picture of {width} x {height} px is impossible; use multiples of {self.scale}."
            )
        shape = (1, *self.shape(height, width))
        generators = (torch.Generator("cpu").manual_seed(seed) for seed in seeds)
        return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def sigmas(steps: int, shift_mu: float | None) -> Tensor:
    """Noise levels from 1 down to 0, (steps + 1,) float32, equal to ComfyUI's scheduler "simple".

    With ``shift_mu`` ``sigma = e^mu / (e^mu + 1/t - 1)`` over a table of 10,000 times t, as
    ComfyUI's ModelSamplingFlux; with None ``sigma = t`` over a table of 1,000.
    """
    if steps < 1:
        raise EraseError(f"Cannot sample in {steps} steps; give at least 1.")
    count = 1_000 if shift_mu is None else 10_000
    table = torch.arange(1, count + 1) / count
    if shift_mu is not None:
        table = math.exp(shift_mu) / (math.exp(shift_mu) + (1 / table - 1))
    rows = [count - 1 - int(step * (count / steps)) for step in range(steps)]
    return torch.cat([table[rows], torch.zeros(1)])


def euler(
    velocity_fn: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Tensor,
    on_step: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Integrate ``dx / dsigma = v`` along ``sigmas`` by Euler steps and return the last x.

    ``velocity_fn(x, sigma)`` gets sigma as a tensor of shape () on x's device. ``on_step(index, x,
    v)`` sees every state, with its velocity, before the step from ``sigmas[index]`` is taken.
    """
    levels = sigmas.to(x.device)
    for index in range(len(levels) - 1):
        v = velocity_fn(x, levels[index])
        if on_step is not None:
            on_step(index, x, v)
        x = x + (levels[index + 1] - levels[index]) * v
    return x


def finite(drawn: Tensor) -> Tensor:
    """``drawn``, a velocity or latents; EraseError for NaN or infinity in it.

    One look costs less than reading 24 GB of weights for a NaN among them.
    """
    if not drawn.isfinite().all():
        raise EraseError(
            "The model draws NaN or infinity: its file or a LoRA is damaged, or a strength or the "
            "guidance is too high."
        )
    return drawn
