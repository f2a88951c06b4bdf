"""Concept Ablation (Kumari et al., ICCV 2023, arXiv 2303.13516).

Pictures x_0 of an anchor prompt c*, the concept's sentence with a relative in its place, are drawn
by the frozen model and noised, ``x_t = (1 - t) x_0 + t eps``. There the student is taught to answer
the concept's prompt c as if it were the anchor's:

- ``ca-model``: ``|| v_D(x_t, c) - v_o(x_t, c*) ||^2``;
- ``ca-noise``: ``|| v_D(x_t, c) - (eps - x_0) ||^2``, the pictures given the concept's name.

Both keep the anchor as it is by the paper's regularisation, weight 1:
``|| v_D(x_t, c*) - (eps - x_0) ||^2``. As the paper's cross-attention variant, a LoRA changes the
keys and values that the text gives. Tuned on MiniFlux's tiger, red, left of and hugging: a rate of
1e-3 is enough for a thing but not for a colour, with a relative for its anchor or the sentence
without it; for a relation it is, and spares more. The empty prompt for an anchor does better with
"left of" and worse with "hugging".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..erasers.lora import EraserLora
from ..models.flux1.forward import tree_device
from ..training.states import Pictures
from .base import Eraser, Method, Task
from .eraseanything.settings import NullPrompt
from .loop import BATCH, Model, descend

SOURCE = "Kumari et al., Concept Ablation, ICCV 2023"
REGULARISATION = 1.0
SETTINGS = {"targets": ("add_k_proj", "add_v_proj"), "null": "replace", "lr": None, "steps": 160}
KINDS = {"entity": {"lr": 2e-3}, "abstraction": {"lr": 2e-3}, "relationship": {"lr": 1e-3}}


def ablating(
    model: Model, null: NullPrompt, noise_based: bool = False
) -> Callable[[Eraser], Tensor]:
    """Both terms for a student, at other states each time it is called."""
    prompts = model.prompts(null)
    anchors = [prompt.null for prompt in prompts]
    concept = model.encode([prompt.sentence.text for prompt in prompts])
    anchor, pictures = model.encode(anchors), Pictures(model.draw(anchors))

    def loss(student: Eraser) -> Tensor:
        batch = pictures.draw(model.generator, BATCH)
        target = batch.target
        if not noise_based:
            with torch.no_grad():
                target = model.velocity(batch, anchor.select(batch.rows))
        ablation = model.error(batch, concept.select(batch.rows), target, student)
        batch = pictures.draw(model.generator, BATCH)
        kept = model.error(batch, anchor.select(batch.rows), batch.target, student)
        return ablation + REGULARISATION * kept

    return loss


def train(
    task: Task,
    noise_based: bool,
    targets: Sequence[str],
    null: NullPrompt,
    lr: float,
    steps: int,
) -> Eraser:
    """Teach the concept's prompts what the anchor's pictures look like."""
    lora = EraserLora.create(task.bundle.config, targets, seed=task.seed)
    lora.to(tree_device(task.bundle.tree))
    loss = ablating(Model(task), null, noise_based)
    descend(lora, lambda step: loss(lora), steps, lr, task.on_step)
    return lora


METHODS = (
    Method(
        "ca-model", "CA, model-based", SOURCE, partial(train, noise_based=False), SETTINGS, KINDS
    ),
    Method(
        "ca-noise", "CA, noise-based", SOURCE, partial(train, noise_based=True), SETTINGS, KINDS
    ),
)
