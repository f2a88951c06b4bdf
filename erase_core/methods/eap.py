"""Erasing-Adversarial-Preservation (Bui et al., NeurIPS 2024, arXiv 2410.15618).

Erasing as ESD does, and preserving the concept c_a that the erasing hurts most:

    min_D  || v_D(x_t, c) - target ||^2  +  preserve max_a || v_D(x_t, c_a) - v_o(x_t, c_a) ||^2,

with ESD's target ``v_o(x_t, null) - eta (v_o(x_t, c) - v_o(x_t, null))``. The paper searches a
vocabulary by Gumbel-softmax; here the candidates are the concept set's irrelevant words, few
enough to be tried one by one, anew every SEARCH iterations. The states x_t of c_a are those of its
own rollouts. Tuned on MiniFlux's tiger, car, red, left of and hugging: with what it preserves it
bears five to ten times ESD's rate. For a thing or a colour "nothing" is the sentence without it and
eta 0; a relation wants the empty prompt and eta 1 ("left of" would be content with 0, "hugging"
stays then). 240 steps leave less of "car" than 120.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasers.base import Eraser
from ..erasers.lora import EraserLora
from ..settings import setting
from ..training.states import Rollouts
from .base import Cost, Method, Task
from .esd import EsdSettings, erasing
from .loop import BATCH, Teacher, descend

SOURCE = "Bui et al., EAP, NeurIPS 2024"
SEARCH = 20  # iterations between two searches
CANDIDATES = 32  # words at most
EACH = 2  # sentences a word


class Adversary:
    """The candidates, and the one of them that a student draws least as it was."""

    def __init__(self, teacher: Teacher) -> None:
        found = list(teacher.kept(EACH).values())
        order = torch.randperm(len(found), generator=teacher.generator)[:CANDIDATES].tolist()
        words = [found[index] for index in order]
        self.teacher = teacher
        self.owner = torch.tensor([n for n, texts in enumerate(words) for _ in texts])
        self.cond = teacher.encode([text for texts in words for text in texts])
        self.states: Rollouts = teacher.roll_out(self.cond)
        self.worst = 0

    @torch.no_grad()
    def search(self, student: Eraser) -> None:
        """Find the word with the largest error, all at one random step of their rollouts."""
        step = torch.randint(self.states.latents.shape[1], (1,), generator=self.teacher.generator)
        errors = torch.zeros(int(self.owner.max()) + 1)
        for rows in torch.arange(len(self.states)).split(4 * BATCH):
            batch = self.states.at(rows, step.expand_as(rows))
            found = self.teacher.velocity(batch, self.cond.select(rows), student).cpu()
            square = (found - batch.target).square().flatten(1).mean(1)
            errors.index_add_(0, self.owner[rows], square)
        self.worst = int((errors / self.owner.bincount()).argmax())

    def error(self, student: Eraser) -> Tensor:
        """``|| v_D(x_t, c_a) - v_o(x_t, c_a) ||^2`` at states of the word that was found."""
        rows = (self.owner == self.worst).nonzero().flatten()
        batch = self.states.draw(self.teacher.generator, BATCH, rows)
        return self.teacher.error(batch, self.cond.select(batch.rows), batch.target, student)


@dataclass(frozen=True)
class EapSettings(EsdSettings):
    """How EAP trains: as ESD does, and what it preserves."""

    steps: int = setting(240, "iterations", low=1, high=100_000)
    preserve: float = setting(1.0, "weight of what is preserved", low=0, high=1e6, step=0.1)


def erase(task: Task, settings: EapSettings) -> Eraser:
    """Erase, and preserve what the last search found."""
    teacher = Teacher(task)
    lora = EraserLora.create(task.model.slots(settings.targets), seed=task.seed)
    lora.to(task.model.device)
    loss, adversary = erasing(teacher, settings.null, settings.eta), Adversary(teacher)

    def total(step: int) -> Tensor:
        if step % SEARCH == 0:
            adversary.search(lora)
        return loss(lora) + settings.preserve * adversary.error(lora)

    descend(lora, total, settings.steps, settings.lr, task)
    return lora


WITHOUT = {"null": "without", "lr": 1e-3, "eta": 0.0}
KINDS = {
    "entity": WITHOUT,
    "abstraction": WITHOUT,
    "relationship": {"null": "empty", "lr": 5e-4, "eta": 1.0},
}
METHODS = (Method("eap", "EAP", SOURCE, erase, EapSettings, kinds=KINDS, cost=Cost(163, 0.91)),)
