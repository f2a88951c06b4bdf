"""Relearning: a few steps of fine-tuning on a few pictures of the concept.

Erasing that only hides a concept is undone by fine-tuning that hardly has time to teach it: Pham et
al., *Circumventing Concept Erasure Methods*, ICLR 2024 (arXiv 2308.01508) and Suriyakumar et al.,
*Unstable Unlearning*, 2024 (arXiv 2410.08074). A fresh LoRA on top of the eraser minimises
``|| v_(D + R)(x_t, c) - (eps - x_0) ||^2``, ``x_t = (1 - t) x_0 + t eps``.
"""

from __future__ import annotations

import torch

from ...erasers.base import Both
from ...erasers.lora import EraserLora
from ...models.base import Adapter
from ..scores import Rate
from .base import Attack, Target

SHOTS, STEPS, RANK, LR = 5, 20, 16, 5e-3
TARGETS = (
    "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "image_attention", "single_blocks",
)  # fmt: skip


def relearn(target: Target) -> Adapter:
    """The eraser with the LoRA learned on top of it."""
    shots = target.shots(SHOTS)
    cond = target.encode(shots.cases)
    fresh = EraserLora.create(target.model.slots(TARGETS), RANK, seed=target.seed)
    fresh.to(target.device)
    lora = fresh if target.eraser is None else Both(target.eraser, fresh)
    optimiser = torch.optim.AdamW(fresh.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(target.seed)
    for step in range(STEPS):
        loss = target.flow_matching(shots.latents, cond, lora, generator)
        optimiser.zero_grad()
        loss.backward(inputs=fresh.parameters())
        optimiser.step()
        target.on_step(step + 1, STEPS)
    return lora


def run(target: Target) -> Rate:
    made = target.cases()
    return target.rate(target.encode(made), target.start(made), relearn(target), made)


ATTACKS = (Attack("relearn", "Relearning", "Pham et al., ICLR 2024", run),)
