"""What the baselines share: prompts, states of the frozen model, one descent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ..concepts.sentences import build, sides
from ..concepts.sentences import replace as put
from ..concepts.spans import word_spans
from ..erasers.base import Eraser
from ..models.base import Adapter, Conditioning, kept_dtype
from ..training.prompts import (
    ErasePrompt,
    NullPrompt,
    Placed,
    RowPrompts,
    Wanted,
    orders,
    plan_prompts,
)
from ..training.states import Batch, Rollouts, Sampler
from .base import Task

GUIDANCE = 3.5  # of rollouts; and in training, where it is an input of the model
BATCH = 8  # states a step, and prompts rolled out together
STEPS = 16  # of a rollout
PROMPTS = 48  # with a concept in them
MAX_NORM = 1.0  # of a step's gradient


class Recorder:
    """Notes inputs and outputs of named Linears on the way through a model with ``inner``."""

    def __init__(self, modules: Collection[str], inner: Adapter | None = None) -> None:
        self.modules, self.inner = modules, inner
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        y = y if self.inner is None else self.inner(name, x, y)
        if name in self.modules:
            self.inputs[name], self.outputs[name] = x, y
        return y


class Teacher:
    """The frozen model of a task, and all that is drawn for it; ``generator`` is the task's."""

    def __init__(self, task: Task) -> None:
        self.model, self.concepts = task.model, task.concepts
        self.device = task.model.device
        self.generator = torch.Generator().manual_seed(task.seed)
        self.guidance = task.model.guidance(GUIDANCE)

    def prompts(self, null: NullPrompt) -> tuple[ErasePrompt, ...]:
        """Sentences with a concept or a synonym, each with the prompt that stands for nothing."""
        count = PROMPTS * len(self.concepts.concepts)
        return plan_prompts(self.concepts, Wanted(count, null=null), self.generator).erase

    def kept(self, each: int) -> dict[str, list[str]]:
        """Up to ``each`` sentences for every irrelevant word, with it where a concept was; of a
        relationship as many of its sides alone, too, as ours keeps them.

        One that still names something to be erased is left out.
        """
        erased = [word for concept in self.concepts.concepts for word in concept.erased()]
        found: dict[str, list[str]] = {}
        for concept in self.concepts.concepts:
            for word in concept.irrelevant_words():
                sentences = build(concept, each, orders(self.generator))
                texts = [put(sentence, word).text for sentence in sentences]
                if concept.kind == "relationship":
                    parts = (sides(sentence) for sentence in sentences)
                    texts += [two[n % len(two)] for n, two in enumerate(parts) if two]
                clean = [t for t in texts if not any(word_spans(t, name) for name in erased)]
                found.setdefault(word, []).extend(clean)
        return {word: texts for word, texts in found.items() if texts}

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """A row for each text."""
        return self.model.text.encode(list(texts)).to(self.device)

    def mask(self, placed: Placed) -> Tensor:
        """(L,) bool: which of a prompt's tokens spell the word in it."""
        return self.model.text.token_mask(placed.text, placed.word).bool()

    def roll_out(self, cond: Conditioning, null: Conditioning | None = None) -> Rollouts:
        """The states of an Euler rollout a row, with the frozen velocities at both prompts."""
        levels, dtype = self.model.sigmas(STEPS), kept_dtype(self.model.tree)
        shape = self.model.family.latents.shape(*(self.model.trained or self.model.size))
        states = Rollouts.empty(len(cond), levels, shape, dtype, null is not None)
        sampler = Sampler(self.model, self.model.drawing(GUIDANCE), self.guidance, ())
        for rows in torch.arange(len(cond)).split(BATCH):
            prompts = RowPrompts(cond.select(rows), null.select(rows) if null else None)
            sampler.fill(states, rows, prompts, self.generator)
        return states

    def draw(self, texts: Sequence[str]) -> Tensor:
        """A clean latent of each text, (N, C, h, w), as the frozen model draws it."""
        seeds = torch.randint(2**31, (len(texts),), generator=self.generator).tolist()
        size = self.model.trained
        return self.model.draw(texts, seeds, size=size, steps=STEPS, guidance=GUIDANCE, batch=BATCH)

    def velocity(self, batch: Batch, cond: Conditioning, eraser: Adapter | None = None) -> Tensor:
        """``v(x_t, c)`` at a batch's states, B rows of prompts; ``eraser`` None is ``v_o``."""
        x, sigma = batch.latents.to(self.device), batch.sigma.to(self.device)
        return self.model.velocity(x, sigma, cond, self.guidance, eraser)

    def error(self, batch: Batch, cond: Conditioning, target: Tensor, eraser: Adapter) -> Tensor:
        """``mean || v_D(x_t, c) - target ||^2``."""
        return F.mse_loss(self.velocity(batch, cond, eraser), target.to(self.device))


def descend(
    eraser: Eraser,
    loss: Callable[[int], Tensor],
    steps: int,
    lr: float,
    task: Task,
) -> None:
    """``steps`` steps of Adam down ``loss(step)``; nothing but the eraser gets a gradient."""
    parameters = eraser.parameters()
    optimiser, told = torch.optim.Adam(parameters, lr=lr), task.steps(steps)
    for step in range(steps):
        optimiser.zero_grad()
        loss(step).backward(inputs=parameters)
        clip_grad_norm_(parameters, MAX_NORM)
        optimiser.step()
        told(step + 1)
    optimiser.zero_grad()
