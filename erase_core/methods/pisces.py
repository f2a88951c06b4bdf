"""PISCES (Gur-Arieh et al., 2025, arXiv 2505.22586): a concept's directions out of the MLPs.

In a language model an MLP writes its output Linear's columns into the residual stream. The paper
finds features of a concept among them with a sparse autoencoder and takes these features out of the
columns. Here the MLPs are those of Flux's text stream (``txt_mlp.2`` of every double block), and
the features are found without an autoencoder: at the same states, what an MLP writes at a concept's
tokens less what it writes at the anchor's, a difference for each prompt; U are the main directions
of these differences, orthonormal rows. The edit is

    W' = (I - U^T U) W,   b' = (I - U^T U) b + U^T U m,

with m the mean of what the MLP writes for prompts that must stay, so that the mean of everything
else does not move along U. All is read at the noise that a picture starts from, one pass a prompt:
it needs the whole transformer, but nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import setting
from ..training.prompts import Placed, Wanted, plan_prompts
from ..training.result import Result
from .algebra import orthonormal, principal
from .base import Method, Task
from .closed import Change, ClosedSettings, bias_of, finish, kept_prompts, weight_of
from .loop import BATCH, Recorder, Teacher

SOURCE = "Gur-Arieh et al., PISCES, 2025"
ROLE = "text.mlp_out"
SIGMA = 1.0  # of the noise that a picture starts from


@dataclass(frozen=True)
class PiscesSettings(ClosedSettings):
    """How much of the MLPs' output goes."""

    prompts: int = setting(16, "sentences with each concept", low=1, high=10_000)
    kept: int = setting(1, "sentences with each word that stays", low=1, high=1000)
    directions: int = setting(4, "directions of each concept in each MLP", low=1, high=256)


def solve(weight: Tensor, bias: Tensor, directions: Tensor, mean: Tensor) -> Change:
    """What takes orthonormal ``directions`` (r, out) out of a Linear whose mean output stays."""
    shift = (mean - bias) @ directions.T
    return Change(-directions.T @ (directions @ weight), shift @ directions)


@torch.no_grad()
def written(teacher: Teacher, placed: Sequence[Placed], modules: Sequence[str]) -> Tensor:
    """What each module writes at a word's tokens, their mean: (modules, N, out) in float64."""
    cond, recorder = teacher.encode([p.text for p in placed]), Recorder(modules)
    start = teacher.model.noise([0], teacher.model.trained).to(teacher.device)
    found = []
    for rows in torch.arange(len(placed)).split(BATCH):
        masks = torch.stack([teacher.mask(placed[row]) for row in rows.tolist()]).double()
        share = masks / masks.sum(1, keepdim=True)
        x, sigma = start.expand(len(rows), -1, -1, -1), torch.tensor(SIGMA, device=teacher.device)
        part = cond.select(rows.to(teacher.device))
        teacher.model.velocity(x, sigma, part, teacher.guidance, recorder)
        outputs = torch.stack([recorder.outputs[module].cpu().double() for module in modules])
        share = share[:, : outputs.shape[2]]  # padding that no row reads has no outputs
        found.append(torch.einsum("bl,mblo->mbo", share, outputs))
    return torch.cat(found, 1)


def erase(task: Task, settings: PiscesSettings) -> Result:
    """Edit the output Linear of every MLP of the text stream."""
    teacher, concepts = Teacher(task), task.concepts.concepts
    modules = task.model.modules([ROLE])
    count = settings.prompts * len(concepts)
    prompts = plan_prompts(task.concepts, Wanted(count, null="replace"), teacher.generator).erase
    names = [concepts[prompt.concept].anchor for prompt in prompts]
    anchors = [Placed(prompt.null, name) for prompt, name in zip(prompts, names, strict=True)]
    texts = kept_prompts(task, settings.kept, teacher.generator)
    sets = ([prompt.sentence for prompt in prompts], anchors, [Placed(t, t) for t in texts])
    told, found = task.steps(len(sets)), []
    for done, placed in enumerate(sets, 1):
        found.append(written(teacher, placed, modules))
        told(done)
    owner = torch.tensor([prompt.concept for prompt in prompts])
    changes = {}
    for module, concept, anchor, kept in zip(modules, *found, strict=True):
        moved = [(concept - anchor)[owner == index] for index in range(len(concepts))]
        main = torch.cat([principal(rows, most=settings.directions) for rows in moved])
        weight = weight_of(task.model, module).cpu().double()
        bias = bias_of(task.model, module)
        plain = torch.zeros(len(weight)) if bias is None else bias.cpu()
        changes[module] = solve(weight, plain.double(), orthonormal(main), kept.mean(0))
    eraser, measured = finish(task, changes, settings.rank)
    return Result(eraser, settings.to_dict() | {"seed": task.seed}, measured=measured)


METHODS = (Method("pisces", "PISCES", SOURCE, erase, PiscesSettings, made="closed form"),)
