"""HiRM (Lee, Kim and Hwang, ICLR 2026, arXiv 2602.19631): CLIP's first layer, taught by its last.

Causal tracing finds what a prompt says of a picture's looks in the first self-attention of CLIP.
An edit that is fitted there takes too much along. So the paper changes the first layer's weights,
and says at the last layer what they are to do: a prompt c of the concept ends at a vector that
stands for a wider concept (HiRM-S), or in a random direction (HiRM-R). With h the last state,

    mean |h_D(c) - h(a)|^2 + preserve mean |h_D(p) - h(p)|^2

is descended by Adam. Here a is the same sentence with the anchor, and h is the pooled vector,
which is all that Flux reads of CLIP: nothing else of CLIP's last layer reaches the picture. The
second term, over prompts p that stay, is ours; the paper has none. T5's tokens stay as they are.
The file holds ``text_encoders.clip_l. ... .diff``: a LoRA loader with a CLIP input takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..erasers.edit import WeightEdit
from ..errors import EraseError
from ..models.flux1.text import CLIP_LENGTH, TextEncoders, clip_name, tokenize
from ..settings import Settings, setting
from ..training.prompts import Wanted, plan_prompts
from .base import Method, Task
from .closed import kept_prompts, spared
from .loop import BATCH, descend

SOURCE = "Lee et al., HiRM, ICLR 2026"
LAYER = "encoder.layers.0.self_attn."
Target = Literal["anchor", "random"]


@dataclass(frozen=True)
class HirmSettings(Settings):
    """How CLIP's first layer is trained."""

    prompts: int = setting(48, "sentences with each concept", low=1, high=10_000)
    kept: int = setting(4, "sentences with each word that stays", low=1, high=1000)
    target: Target = setting("anchor", "where a concept ends", choices=get_args(Target))
    preserve: float = setting(1.0, "weight of what stays", low=0, high=1e6)
    lr: float = setting(1e-4, "learning rate", low=0, high=10, step=1e-5)
    steps: int = setting(200, "iterations", low=1, high=100_000)


def pooled(text: TextEncoders, prompts: Sequence[str]) -> Tensor:
    """CLIP's pooled vectors (N, P), with gradients where an edit is being trained."""
    ids = tokenize(text.clip_tokenizer, prompts, CLIP_LENGTH).to(text.clip.device)
    found: Tensor = text.clip(input_ids=ids).pooler_output
    return found


def first_layer(text: TextEncoders) -> WeightEdit:
    """Changes of nothing yet to the self-attention of CLIP's first layer."""
    linears = (
        (clip_name(name), module)
        for name, module in text.clip.named_modules()
        if isinstance(module, torch.nn.Linear) and LAYER in name
    )
    sizes = {name: (linear.out_features, linear.in_features) for name, linear in linears}
    return WeightEdit({name: torch.zeros(size) for name, size in sizes.items()})


def erase(task: Task, settings: HirmSettings) -> WeightEdit:
    """Train the edit."""
    text = task.model.text
    if not isinstance(text, TextEncoders):
        raise EraseError("HiRM trains CLIP, which a host keeps shut; run it on the command line.")
    generator = torch.Generator().manual_seed(task.seed)
    count = settings.prompts * len(task.concepts.concepts)
    prompts = plan_prompts(task.concepts, Wanted(count, null="replace"), generator).erase
    kept = kept_prompts(task, settings.kept, generator)
    with torch.no_grad():
        goals = pooled(text, [prompt.null for prompt in prompts])
        stay = pooled(text, kept)
        if settings.target == "random":
            way = torch.randn(goals.shape[1], generator=generator).to(goals)
            goals = (way / way.norm() * goals.norm(dim=1).mean()).expand_as(goals)
    edit = first_layer(text).to(text.clip.device)

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(prompts), (BATCH,), generator=generator).tolist()
        others = torch.randint(len(kept), (BATCH,), generator=generator).tolist()
        with text.under(edit):
            found = pooled(text, [prompts[row].sentence.text for row in rows])
            held = pooled(text, [kept[row] for row in others])
        return F.mse_loss(found, goals[rows]) + settings.preserve * F.mse_loss(held, stay[others])

    descend(edit, loss, settings.steps, settings.lr, task)
    return edit.to("cpu")


METHODS = (
    Method(
        "hirm",
        "HiRM",
        SOURCE,
        erase,
        HirmSettings,
        families=("flux1",),
        several=spared,
        forward=False,
    ),
)
