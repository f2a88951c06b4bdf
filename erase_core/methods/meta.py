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
from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasers.base import Both, Eraser
from ..erasers.edit import WeightEdit
from ..erasers.lora import EraserLora
from ..models.base import Adapter
from ..settings import setting
from ..training.states import Pictures
from . import ca
from .base import Cost, Method, Task
from .ca import CaSettings
from .esd import ATTENTION
from .loop import BATCH, Teacher, descend

SOURCE = "Gao et al., Meta-Unlearning, ICCV 2025"
EACH = 4  # sentences a relative
LIMIT = 2.0  # about the loss of a model that says nothing


def matching(teacher: Teacher, texts: Sequence[str]) -> Callable[[Adapter], Tensor]:
    """The flow-matching loss on pictures that the frozen model draws of ``texts``."""
    cond, pictures = teacher.encode(texts), Pictures(teacher.draw(texts))

    def loss(student: Adapter) -> Tensor:
        batch = pictures.draw(teacher.generator, BATCH)
        return teacher.error(batch, cond.select(batch.rows), batch.target, student)

    return loss


def relatives(teacher: Teacher) -> list[str]:
    """Sentences about the words near the concepts, or about all that stay where none is near."""
    near = {word for concept in teacher.concepts.concepts for word in concept.irrelevant.near}
    kept = teacher.kept(EACH)
    words = [word for word in kept if word in near] or list(kept)
    return [text for word in words for text in kept[word]]


def stepped(
    loss: Callable[[Adapter], Tensor], student: Adapter, edit: WeightEdit, reach: float
) -> Adapter:
    """The student after one step of ``edit``, still zero, down a loss."""
    gradients = torch.autograd.grad(
        loss(Both(student, edit)),
        edit.parameters(),
        materialize_grads=True,  # a last block's text may be read by nobody
    )
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    made = zip(edit.changes, gradients, strict=True)
    return Both(student, WeightEdit({name: -reach * g / norm for name, g in made}))


@dataclass(frozen=True)
class MetaSettings(CaSettings):
    """How meta-unlearning trains: as Concept Ablation does, and what it spoils."""

    harm: float = setting(0.1, "weight of what an attacker's loss is to be", low=0, high=1e6)
    reach: float = setting(1.0, "length of the attacker's step", low=0, high=1e6, step=0.1)


def erase(task: Task, settings: MetaSettings) -> Eraser:
    """Ablate the concept, and leave little to those who would learn it again."""
    teacher, tree = Teacher(task), task.model.tree
    lora = EraserLora.create(task.model.slots(settings.targets), seed=task.seed)
    lora.to(task.model.device)
    modules = sorted(task.model.modules(ATTENTION))
    ablating = ca.ablating(teacher, settings.null)
    own = matching(teacher, [prompt.sentence.text for prompt in teacher.prompts(settings.null)])
    kin = matching(teacher, relatives(teacher))

    def total(step: int) -> Tensor:
        edit = WeightEdit.zeros(tree, modules)
        attacked = stepped(own, lora, edit, settings.reach)
        spoiled = own(attacked).clamp(max=LIMIT) + kin(attacked).clamp(max=LIMIT)
        return ablating(lora) - settings.harm * spoiled

    descend(lora, total, settings.steps, settings.lr, task)
    return lora


METHODS = (
    Method(
        "meta", "Meta-unlearning", SOURCE, erase, MetaSettings, kinds=ca.KINDS, cost=Cost(285, 0.74)
    ),
)
