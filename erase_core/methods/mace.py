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
from typing import Any

import torch
from torch import Tensor, nn

from ..concepts.sentences import build
from ..concepts.sets import ConceptSet
from ..erasers.edit import WeightEdit
from ..erasers.lora import EraserLora
from ..training.progress import Progress
from .base import Eraser, Method, Task
from .eraseanything.settings import TrainSettings
from .eraseanything.trainer import Trainer
from .loop import BATCH, PROMPTS, Model, Recorder

SOURCE = "Lu et al., MACE, CVPR 2024"
SETTINGS = {"steps": 100, "lr": None, "l_attn": 1.0}
KINDS = {"entity": {"lr": 1e-3}, "abstraction": {"lr": 5e-4}, "relationship": {"lr": 2e-4}}
ROLLOUT_STEPS = 16
TARGETS = ("add_k_proj", "add_v_proj")
PRIOR = 1.0
RIDGE = 1e-3  # of the mean second moment
SENTENCES, KEPT = 16, 2  # of a concept, of an irrelevant word
DRAWS = 16  # batches of states that inputs are collected at

Moments = dict[str, Tensor]  # Linear -> (in, in) float64


def single(task: Task, index: int, steps: int, lr: float, l_attn: float) -> EraserLora:
    """The eraser of one concept, the ``index``-th of the task's."""
    bundle, count = task.bundle, len(task.concepts.concepts)
    settings = TrainSettings(
        steps=steps,
        targets=TARGETS,
        lr_low=lr,
        eta=0.0,
        l_attn=l_attn,
        l_lora=0.0,
        l_rsc=0.0,
        null="replace",
        rollout_steps=ROLLOUT_STEPS,
        erase_rollouts=PROMPTS,
        height=bundle.size[0],
        width=bundle.size[1],
        shift_mu=bundle.shift_mu,
        seed=task.seed,
    )

    def on_step(progress: Progress) -> None:
        if progress.phase == "training":
            task.on_step(index * steps + progress.step, count * steps)

    concepts = ConceptSet((task.concepts.concepts[index],))
    return (
        Trainer(bundle.tree, bundle.config, bundle.text, concepts, settings, on_step=on_step)
        .run()
        .lora
    )


@torch.no_grad()
def moments(model: Model, texts: Sequence[str], modules: Iterable[str]) -> Moments:
    """``mean x x^T`` of what Linears read along the frozen model's rollouts of some prompts."""
    cond, recorder = model.encode(texts), Recorder(list(modules))
    states = model.roll_out(cond)
    found: Moments = {}
    for _ in range(DRAWS):
        batch = states.draw(model.generator, BATCH)
        model.velocity(batch, cond.select(batch.rows), recorder)
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


def erase(task: Task, **settings: Any) -> Eraser:
    """An eraser for each concept, and then one for all."""
    erasers = [single(task, index, **settings) for index in range(len(task.concepts.concepts))]
    if len(erasers) == 1:
        return erasers[0]
    model = Model(task)
    changes = [dense(task.bundle.tree, eraser) for eraser in erasers]
    inputs = [
        moments(model, [s.text for s in build(concept, SENTENCES, model.generator)], changes[0])
        for concept in task.concepts.concepts
    ]
    kept = [text for texts in model.kept(KEPT).values() for text in texts]
    return WeightEdit(fuse(changes, inputs, moments(model, kept, changes[0])))


METHODS = (Method("mace", "MACE-style", SOURCE, erase, SETTINGS, KINDS),)
