"""MACE-style fusion (Lu et al., MACE: Mass Concept Erasure, CVPR 2024, arXiv 2403.06135).

Every concept gets a LoRA of its own on the text's keys and values: its words lose the attention
of the picture, and what the sentence says is read as if an anchor stood there. (In the paper a
closed form on the prompts' embeddings does the latter and segmentation masks bound the former;
Flux's keys have no such fixed inputs, and the masks are left out.) The LoRAs are then fused in
closed form. For a Linear W with changes D_i, inputs x_i at the prompts of concept i and x_p at
prompts that must stay, the change D of all minimises

    sum_i mean |D x_i - D_i x_i|^2 + PRIOR mean |D x_p|^2 + RIDGE |D|^2,

so ``D = (sum_i D_i C_i) (sum_i C_i + PRIOR C_p + RIDGE I)^-1`` with the second moments
``C = mean x x^T``. One concept alone keeps its LoRA as it is.
The LoRA's rate is tuned by kind, of 1e-4 to 2e-3: the least of those tried that takes MiniFlux's
red and comic out, or left of and hugging; for a thing it is the first that was tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..concepts.sentences import build
from ..concepts.sets import ConceptSet
from ..erasers.base import Eraser
from ..erasers.edit import WeightEdit
from ..erasers.lora import EraserLora
from ..settings import Settings, setting
from ..training.progress import Progress
from ..training.prompts import orders
from .base import Cost, Method, Task
from .eraseanything.settings import TrainSettings
from .eraseanything.trainer import Trainer
from .loop import BATCH, PROMPTS, Recorder, Teacher

SOURCE = "Lu et al., MACE, CVPR 2024"
KINDS = {"entity": {"lr": 1e-3}, "abstraction": {"lr": 5e-4}, "relationship": {"lr": 2e-4}}
ROLLOUT_STEPS = 16
TARGETS = ("add_k_proj", "add_v_proj")
PRIOR = 1.0
RIDGE = 1e-3  # of the mean second moment
SENTENCES, KEPT = 16, 2  # of a concept, of an irrelevant word
DRAWS = 16  # batches of states that inputs are collected at

Moments = dict[str, Tensor]  # Linear -> (in, in) float64


@dataclass(frozen=True)
class MaceSettings(Settings):
    """How each concept's LoRA is trained."""

    steps: int = setting(100, "iterations of each concept", low=1, high=100_000)
    lr: float = setting(1e-3, "learning rate", low=0, high=10, step=1e-5)
    l_attn: float = setting(1.0, "weight of taking attention away", low=0, high=1e6, step=0.1)


def single(task: Task, index: int, chosen: MaceSettings) -> EraserLora:
    """The eraser of one concept, the ``index``-th of the task's."""
    model = task.model
    told = task.steps(len(task.concepts.concepts) * chosen.steps)
    settings = TrainSettings(
        steps=chosen.steps,
        targets=TARGETS,
        lr_low=chosen.lr,
        eta=0.0,
        l_attn=chosen.l_attn,
        l_lora=0.0,
        l_rsc=0.0,
        null="replace",
        rollout_steps=ROLLOUT_STEPS,
        erase_rollouts=PROMPTS,
        height=(model.trained or model.size)[0],
        width=(model.trained or model.size)[1],
        shift_mu=model.shift_mu,
        seed=task.seed,
    )

    def on_step(progress: Progress) -> None:
        if progress.phase == "training":
            told(index * chosen.steps + progress.step)

    concepts = ConceptSet((task.concepts.concepts[index],))
    made = Trainer(model, concepts, settings, on_step=on_step).run().eraser
    assert isinstance(made, EraserLora)
    return made


@torch.no_grad()
def moments(teacher: Teacher, texts: Sequence[str], modules: Iterable[str]) -> Moments:
    """``mean x x^T`` of what Linears read along the frozen model's rollouts of some prompts."""
    cond, recorder = teacher.encode(texts), Recorder(list(modules))
    states = teacher.roll_out(cond)
    found: Moments = {}
    for _ in range(DRAWS):
        batch = states.draw(teacher.generator, BATCH)
        teacher.velocity(batch, cond.select(batch.rows), recorder)
        for name, read in recorder.inputs.items():
            x = read.flatten(0, -2).double()
            found[name] = found.get(name, torch.zeros(())) + x.T @ x / (len(x) * DRAWS)
    return found


def fuse(
    changes: Sequence[Mapping[str, Tensor]], inputs: Sequence[Moments], prior: Moments
) -> dict[str, Tensor]:
    """D of every Linear, of D_i (out, in) and C_i of every concept, and C_p."""
    fused = {}
    for name, kept in prior.items():
        pairs = zip(changes, inputs, strict=True)
        wanted = torch.stack([d[name].double() @ c[name] for d, c in pairs]).sum(0)
        total = torch.stack([c[name] for c in inputs]).sum(0) + PRIOR * kept
        ridge = RIDGE * total.diagonal().mean() * torch.eye(len(total)).to(total)
        fused[name] = torch.linalg.solve(total + ridge, wanted, left=False)
    return fused


@torch.no_grad()
def dense(tree: nn.Module, lora: EraserLora) -> dict[str, Tensor]:
    """The change of every Linear as a matrix (out, in): what it adds for the unit inputs."""
    found = {}
    for name in dict.fromkeys(slot.module for slot in lora.slots.values()):
        weight = tree.get_parameter(f"{name}.weight")
        nothing = torch.zeros(weight.shape[::-1], device=weight.device)
        found[name] = lora(name, torch.eye(weight.shape[1], device=weight.device), nothing).T
    return found


def erase(task: Task, settings: MaceSettings) -> Eraser:
    """An eraser for each concept, and then one for all."""
    erasers = [single(task, index, settings) for index in range(len(task.concepts.concepts))]
    if len(erasers) == 1:
        return erasers[0]
    teacher = Teacher(task)
    changes = [dense(task.model.tree, eraser) for eraser in erasers]
    inputs = [
        moments(
            teacher,
            [s.text for s in build(concept, SENTENCES, orders(teacher.generator))],
            changes[0],
        )
        for concept in task.concepts.concepts
    ]
    kept = [text for texts in teacher.kept(KEPT).values() for text in texts]
    return WeightEdit(fuse(changes, inputs, moments(teacher, kept, changes[0])))


METHODS = (
    Method("mace", "MACE-style", SOURCE, erase, MaceSettings, kinds=KINDS, cost=Cost(63, 0.72)),
)
