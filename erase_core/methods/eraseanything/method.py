"""EraseAnything as this package does it, and its ablations.

Gao et al., *EraseAnything*, ICML 2025 (arXiv 2412.20413), Algorithm 1: the bi-level training of
:class:`.trainer.Trainer` with the four losses of Eq. 2 to 5, and the settings that
``train`` and the nodes give MiniFlux: adversaries inside the erase step, and the image stream's
attention, without which the text side alone cannot meet them. "ours-plain" is what the demo takes,
without either; the ablations are those of the paper's table on top of it: a loss that is not named
has weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from ...concepts.sets import ConceptSet
from ...erasers.combine import Part, combine
from ...erasers.lora import EraserLora
from ...miniatures.miniflux import demo_settings, train_settings
from ...training.progress import Progress
from ..base import Method, Task
from .settings import TrainSettings
from .trainer import Trainer

SOURCE = "Gao et al., EraseAnything, ICML 2025"
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours-plain": ("ours without adversaries", {}),
    "ours-esd-attn": ("ESD + attn", {"l_lora": 0.0, "l_rsc": 0.0}),
    "ours-esd-lora": ("ESD + LoRA", {"l_attn": 0.0, "l_rsc": 0.0}),
    "ours-esd-rsc": ("ESD + RSC", {"l_attn": 0.0, "l_lora": 0.0}),
    "ours-attn-lora-rsc": (
        "attn + LoRA + RSC",
        {"l_esd": 0.0, "rollout_prompt": "concept"},  # its null prompt is L_esd's
    ),
}
Own = Callable[[ConceptSet], TrainSettings]
# A row can change every setting; None, or () for a list, is what suits the concepts.
UNSAID = {
    field.name: () if isinstance(field.default, tuple) else None
    for field in fields(TrainSettings)
    if field.name != "seed"
}


def train(task: Task, own: Own, **changes: Any) -> EraserLora:
    """Algorithm 1 with the concepts' ``own`` settings and ``changes`` of them."""

    def on_step(progress: Progress) -> None:
        if progress.phase == "training":
            task.on_step(progress.step, progress.steps)

    bundle = task.bundle
    said = {name: value for name, value in changes.items() if value not in (None, ())}
    settings = replace(own(task.concepts), **said, seed=task.seed)
    trainer = Trainer(
        bundle.tree, bundle.config, bundle.text, task.concepts, settings, on_step=on_step
    )
    return trainer.run().lora


def combined(task: Task, **changes: Any) -> EraserLora:
    """An eraser for every concept alone, their changes added (ranks stacked)."""
    parts = []
    for concept in task.concepts.concepts:
        alone = train(replace(task, concepts=ConceptSet((concept,))), train_settings, **changes)
        parts.append(Part(alone.tensors(), 1.0, {}))
    return EraserLora.from_tensors(combine(parts), task.bundle.config)


METHODS = (
    Method("ours", "EraseAnything (ours)", SOURCE, partial(train, own=train_settings), UNSAID),
    Method("ours-combined", "ours, single erasers added", SOURCE, combined, UNSAID),
    *(
        Method(name, label, SOURCE, partial(train, own=demo_settings), UNSAID | changes)
        for name, (label, changes) in ABLATIONS.items()
    ),
)
