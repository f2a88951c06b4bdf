"""Inverted latents: start from the noise that a picture of the concept comes from.

Rusanovsky et al., *Memories of Forgotten Concepts*, CVPR 2025 (arXiv 2412.00782), invert pictures
of the concept with the erased model itself: what is forgotten has no noise that leads to it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ...models.base import Conditioning
from ..scores import Rate
from .base import BATCH, Attack, Target

REFINEMENTS = 3  # fixed-point iterations a step


def invert(
    velocity_fn: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Tensor,
    refinements: int = REFINEMENTS,
) -> Tensor:
    """The noise from which Euler steps along ``sigmas`` lead to ``x``.

    A step ``y = x + (s' - s) v(x, s)`` is undone by iterating ``x <- y + (s - s') v(x, s)`` from
    ``x = y``; one iteration is Euler's method run backwards. Garibi et al., *ReNoise*, ECCV 2024.
    """
    for low, high in pairwise(sigmas.flip(0)):
        guess = x
        for _ in range(refinements):
            guess = x + (high - low) * velocity_fn(guess, high)
        x = guess
    return x


@torch.no_grad()
def run(target: Target) -> Rate:
    """Draw the concept, invert with the eraser under the empty prompt, draw under the own prompt.

    Under its own prompt a picture would come back from its noise whatever the eraser did.
    """
    made = target.cases()
    cond, nothing = target.encode(made), target.empty(len(made))
    pictures = target.sample(cond, target.start(made), None)
    noise = []
    for rows in torch.arange(len(made)).split(BATCH):
        part = nothing.select(rows)

        def predict(x: Tensor, sigma: Tensor, part: Conditioning = part) -> Tensor:
            return target.velocity(x, sigma, part, target.eraser)

        noise.append(invert(predict, pictures[rows], target.levels))
        target.on_step(int(rows[-1]) + 1, len(made))
    return target.rate(cond, torch.cat(noise), target.eraser, made)


ATTACKS = (Attack("latents", "Inverted latents", "Rusanovsky et al., CVPR 2025", run),)
