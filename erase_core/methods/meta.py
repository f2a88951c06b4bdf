"""Meta-Unlearning on Diffusion Models (Gao et al., ICCV 2025, arXiv 2410.12777).

Erasing by any method, while who would train the concept back in is looked ahead to. In every
iteration an attacker R makes one step down the flow-matching loss of the concept's own pictures,

    R = -reach g / ||g||,   g = grad_R || v_(D + R)(x_t, c) - (eps - x_0) ||^2  at  R = 0,

on the weights of the double blocks' attention; the student is to be bad there at the concept, and
at its relatives c' ("self-destruct"), from which it would be learned again:

    min_D  L_erase(D) - harm (L_FM(D + R; c) + L_FM(D + R; c')),   first order: R counts as given.

L_erase is Concept Ablation's, model-based, with its settings; a loss that is above LIMIT already is
driven no higher. Tuned on MiniFlux's tiger: harm 0.3 takes all else along, and neither it nor an
attacker who changes the single blocks, too, holds relearning up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..erasers.edit import WeightEdit
from ..erasers.lora import EraserLora
from ..models.flux1.forward import Lora, tree_device
from ..models.flux1.names import lora_slots
from ..training.states import Pictures
from . import ca
from .base import Eraser, Method, Task
from .eraseanything.settings import NullPrompt
from .esd import ATTENTION
from .loop import BATCH, Both, Model, descend

SOURCE = "Gao et al., Meta-Unlearning, ICCV 2025"
EACH = 4  # sentences a relative
LIMIT = 2.0  # about the loss of a model that says nothing


def matching(model: Model, texts: Sequence[str]) -> Callable[[Lora], Tensor]:
    """The flow-matching loss on pictures that the frozen model draws of ``texts``."""
    cond, pictures = model.encode(texts), Pictures(model.draw(texts))

    def loss(student: Lora) -> Tensor:
        batch = pictures.draw(model.generator, BATCH)
        return model.error(batch, cond.select(batch.rows), batch.target, student)

    return loss


def relatives(model: Model) -> list[str]:
    """Sentences about the words near the concepts, or about all that stay where none is near."""
    near = {word for concept in model.concepts.concepts for word in concept.irrelevant.near}
    kept = model.kept(EACH)
    words = [word for word in kept if word in near] or list(kept)
    return [text for word in words for text in kept[word]]


def stepped(loss: Callable[[Lora], Tensor], student: Lora, edit: WeightEdit, reach: float) -> Lora:
    """The student after one step of ``edit``, still zero, down a loss."""
    gradients = torch.autograd.grad(loss(Both(student, edit)), edit.parameters())
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    made = zip(edit.changes, gradients, strict=True)
    return Both(student, WeightEdit({name: -reach * g / norm for name, g in made}))


def erase(
    task: Task,
    targets: Sequence[str],
    null: NullPrompt,
    lr: float,
    steps: int,
    harm: float,
    reach: float,
) -> Eraser:
    """Ablate the concept, and leave little to those who would learn it again."""
    model, tree = Model(task), task.bundle.tree
    lora = EraserLora.create(task.bundle.config, targets, seed=task.seed).to(tree_device(tree))
    modules = {slot.module for slot in lora_slots(task.bundle.config, ATTENTION).values()}
    ablating = ca.ablating(model, null)
    own = matching(model, [prompt.sentence.text for prompt in model.prompts(null)])
    kin = matching(model, relatives(model))

    def total(step: int) -> Tensor:
        attacked = stepped(own, lora, WeightEdit.zeros(tree, sorted(modules)), reach)
        spoiled = own(attacked).clamp(max=LIMIT) + kin(attacked).clamp(max=LIMIT)
        return ablating(lora) - harm * spoiled

    descend(lora, total, steps, lr, task.on_step)
    return lora


SETTINGS: dict[str, Any] = ca.SETTINGS | {"harm": 0.1, "reach": 1.0}
METHODS = (Method("meta", "Meta-unlearning", SOURCE, erase, SETTINGS, ca.KINDS),)
