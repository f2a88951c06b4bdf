"""Concept Ablation (Kumari et al., ICCV 2023, arXiv 2303.13516).

The anchor prompt c* is the concept's sentence with a relative in its place. The frozen model draws
pictures x_0 of it, which are noised, ``x_t = (1 - t) x_0 + t eps``. There the student is taught to
answer the concept's prompt c as if it were the anchor's:

- ``ca-teacher``: ``|| v_D(x_t, c) - v_o(x_t, c*) ||^2``;
- ``ca-noise``: ``|| v_D(x_t, c) - (eps - x_0) ||^2``, the pictures given the concept's name.

Both keep the anchor as it is by the paper's regularisation, weight 1:
``|| v_D(x_t, c*) - (eps - x_0) ||^2``. As the paper's cross-attention variant, a LoRA changes the
keys and values that the text gives. Tuned on MiniFlux's tiger, red, left of and hugging: a rate of
1e-3 is enough for a thing but not for a colour, with a relative for its anchor or the sentence
without it; for a relation it is, and spares more. The empty prompt for an anchor does better with
"left of" and worse with "hugging".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from ..erasers.base import Eraser
from ..erasers.lora import EraserLora
from ..settings import Settings, setting
from ..training.prompts import NullPrompt
from ..training.states import Pictures
from .base import Cost, Method, Task
from .loop import BATCH, Teacher, descend

SOURCE = "Kumari et al., Concept Ablation, ICCV 2023"
REGULARISATION = 1.0


@dataclass(frozen=True)
class CaSettings(Settings):
    """How Concept Ablation trains."""

    targets: tuple[str, ...] = setting(("add_k_proj", "add_v_proj"), "what is trained")
    null: NullPrompt = setting("replace", "the anchor's prompt", choices=get_args(NullPrompt))
    lr: float = setting(2e-3, "learning rate", low=0, high=10, step=1e-5)
    steps: int = setting(160, "iterations", low=1, high=100_000)


KINDS = {"entity": {"lr": 2e-3}, "abstraction": {"lr": 2e-3}, "relationship": {"lr": 1e-3}}


def ablating(
    teacher: Teacher, null: NullPrompt, noise_based: bool = False
) -> Callable[[Eraser], Tensor]:
    """Both terms for a student, at other states each time it is called."""
    prompts = teacher.prompts(null)
    anchors = [prompt.null for prompt in prompts]
    concept = teacher.encode([prompt.sentence.text for prompt in prompts])
    anchor, pictures = teacher.encode(anchors), Pictures(teacher.draw(anchors))

    def loss(student: Eraser) -> Tensor:
        batch = pictures.draw(teacher.generator, BATCH)
        target = batch.target
        if not noise_based:
            with torch.no_grad():
                target = teacher.velocity(batch, anchor.select(batch.rows))
        ablation = teacher.error(batch, concept.select(batch.rows), target, student)
        batch = pictures.draw(teacher.generator, BATCH)
        kept = teacher.error(batch, anchor.select(batch.rows), batch.target, student)
        return ablation + REGULARISATION * kept

    return loss


def train(task: Task, settings: CaSettings, noise_based: bool) -> Eraser:
    """Teach the concept's prompts what the anchor's pictures look like."""
    lora = EraserLora.create(task.model.slots(settings.targets), seed=task.seed)
    lora.to(task.model.device)
    loss = ablating(Teacher(task), settings.null, noise_based)
    descend(lora, lambda step: loss(lora), settings.steps, settings.lr, task)
    return lora


def _method(name: str, label: str, noise_based: bool, cost: Cost) -> Method:
    run = partial(train, noise_based=noise_based)
    return Method(name, label, SOURCE, run, CaSettings, kinds=KINDS, cost=cost)


METHODS = (
    _method("ca-model", "CA, model-based", False, Cost(91, 0.84)),
    _method("ca-noise", "CA, noise-based", True, Cost(106, 0.73)),
)
