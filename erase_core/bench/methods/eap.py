"""Erasing-Adversarial-Preservation (Bui et al., NeurIPS 2024, arXiv 2410.15618).

Erasing as ESD does, and preserving the concept c_a that the erasing hurts most:

    min_D  || v_D(x_t, c) - target ||^2  +  PRESERVE max_a || v_D(x_t, c_a) - v_o(x_t, c_a) ||^2,

with ESD's target ``v_o(x_t, null) - eta (v_o(x_t, c) - v_o(x_t, null))``. The paper searches a
vocabulary by Gumbel-softmax; here the candidates are the concept set's irrelevant words, few
enough to be tried one by one, anew every SEARCH iterations. The states x_t of c_a are those of its
own rollouts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...flux.forward import tree_device
from ...lora import EraserLora
from ...losses import esd_target
from ...training.states import Rollouts
from ..loop import BATCH, Model, descend
from ..method import Eraser, Method, Task

SOURCE = "Bui et al., EAP, NeurIPS 2024"
ETA = 1.0
BARE = True
PRESERVE = 1.0
ITERATIONS = 160
LR = 2e-4
SEARCH = 20  # iterations between two searches
CANDIDATES = 32  # words at most
EACH = 2  # sentences a word
TARGETS = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "image_attention")


class Adversary:
    """The candidates, and the one of them that a student draws least as it was."""

    def __init__(self, model: Model) -> None:
        found = list(model.kept(EACH).values())
        order = torch.randperm(len(found), generator=model.generator)[:CANDIDATES].tolist()
        words = [found[index] for index in order]
        self.model = model
        self.owner = torch.tensor([n for n, texts in enumerate(words) for _ in texts])
        self.cond = model.encode([text for texts in words for text in texts])
        self.states: Rollouts = model.roll_out(self.cond)
        self.worst = 0

    @torch.no_grad()
    def search(self, student: Eraser) -> None:
        """Find the word with the largest error, all at one random step of their rollouts."""
        step = torch.randint(self.states.latents.shape[1], (1,), generator=self.model.generator)
        errors = torch.zeros(int(self.owner.max()) + 1)
        for rows in torch.arange(len(self.states)).split(4 * BATCH):
            batch = self.states.at(rows, step.expand_as(rows))
            found = self.model.velocity(batch, self.cond.select(rows), student).cpu()
            square = (found - batch.target).square().flatten(1).mean(1)
            errors.index_add_(0, self.owner[rows], square)
        self.worst = int((errors / self.owner.bincount()).argmax())

    def error(self, student: Eraser) -> Tensor:
        """``|| v_D(x_t, c_a) - v_o(x_t, c_a) ||^2`` at states of the word that was found."""
        rows = (self.owner == self.worst).nonzero().flatten()
        batch = self.states.draw(self.model.generator, BATCH, rows)
        return self.model.error(batch, self.cond.select(batch.rows), batch.target, student)


def erase(task: Task) -> Eraser:
    """Erase and preserve in turn with the search."""
    model = Model(task)
    lora = EraserLora.create(task.bundle.config, TARGETS, seed=task.seed)
    lora.to(tree_device(task.bundle.tree))
    prompts = model.prompts("empty", bare=BARE)
    cond = model.encode([prompt.sentence.text for prompt in prompts])
    states = model.roll_out(cond, model.encode([prompt.null for prompt in prompts]))
    adversary = Adversary(model)

    def loss(step: int) -> Tensor:
        if step % SEARCH == 0:
            adversary.search(lora)
        batch = states.draw(model.generator, BATCH)
        assert batch.null is not None
        target = esd_target(batch.null, batch.target, ETA)
        erased = model.error(batch, cond.select(batch.rows), target, lora)
        return erased + PRESERVE * adversary.error(lora)

    descend(lora, loss, ITERATIONS, LR, task.on_step)
    return lora


METHODS = (Method("eap", "EAP", SOURCE, erase),)
