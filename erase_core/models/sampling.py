"""Sampling as ComfyUI's KSampler does it: schedule "simple", CPU noise, sampler "euler"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import EraseError

DEV_SHIFT = 1.15  # ComfyUI's mu for FLUX.1-dev, at any picture size


def sigmas(steps: int, shift_mu: float | None = DEV_SHIFT) -> Tensor:
    """Noise levels from 1 down to 0, (steps + 1,) float32, equal to ComfyUI's scheduler "simple".

    With ``shift_mu`` (dev) ``sigma = e^mu / (e^mu + 1/t - 1)`` over a table of 10,000 times t, as
    ComfyUI's ModelSamplingFlux; with None (schnell) ``sigma = t`` over a table of 1,000.
    """
    if steps < 1:
        raise EraseError(f"Cannot sample in {steps} steps; give at least 1.")
    count = 1_000 if shift_mu is None else 10_000
    table = torch.arange(1, count + 1) / count
    if shift_mu is not None:
        table = math.exp(shift_mu) / (math.exp(shift_mu) + (1 / table - 1))
    rows = [count - 1 - int(step * (count / steps)) for step in range(steps)]
    return torch.cat([table[rows], torch.zeros(1)])


def diffusers_mu(width: int, height: int) -> float:
    """The shift that diffusers' Flux pipeline uses for a picture of this size in pixels.

    Linear in the number of 16 px tokens: 0.5 at 256 tokens, 1.15 at 4,096.
    """
    tokens = (width // 16) * (height // 16)
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)


def noise(seed: int, count: int, height: int, width: int) -> Tensor:
    """Start latents as KSampler draws them: (count, 16, height/8, width/8) float32 on the CPU.

    ``height`` and ``width`` in pixels; EraseError unless they are positive multiples of 8.
    """
    if min(height, width) < 8 or height % 8 or width % 8:
        raise EraseError(f"A picture of {width} x {height} px is impossible; use multiples of 8.")
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(count, 16, height // 8, width // 8, generator=generator)


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
