"""EraseAnything as this package does it, and its ablations.

Gao et al., *EraseAnything*, ICML 2025 (arXiv 2412.20413), Algorithm 1: the bi-level training of
:class:`erase_core.training.Trainer` with the four losses of Eq. 2 to 5. What resists attackers is
added to the demo's settings: adversaries inside the erase step, and the image stream's attention,
without which the text side alone cannot meet them; not for relationships, which have settings of
their own. The ablations are those of the paper's table, without adversaries, too: a loss that is
not named has weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...combine import Part, combine
from ...concepts.sets import ConceptSet
from ...lora import EraserLora
from ...miniflux import RELATION, demo_settings
from ...training import Progress, Trainer, TrainSettings
from ..method import Method, Task

SOURCE = "Gao et al., EraseAnything, ICML 2025"
ROBUST = {
    "targets": (*demo_settings().targets, "image_attention"),
    "lr_low": 1e-3,
    "l_adv": 1.0,
}
PLAIN = {"targets": demo_settings().targets, "l_adv": 0.0}
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours-plain": ("ours without adversaries", {}),
    "ours-esd-attn": ("ESD + attn", {"l_lora": 0.0, "l_rsc": 0.0}),
    "ours-esd-lora": ("ESD + LoRA", {"l_attn": 0.0, "l_rsc": 0.0}),
    "ours-esd-rsc": ("ESD + RSC", {"l_attn": 0.0, "l_lora": 0.0}),
    "ours-attn-lora-rsc": ("attn + LoRA + RSC", {"l_esd": 0.0}),
}


def train(task: Task, relation: Mapping[str, Any], **settings: Any) -> EraserLora:
    """Algorithm 1 with ``settings`` of TrainSettings; in a relationship ``relation`` comes first (a
    row without is "ours-plain relation={}")."""

    def on_step(progress: Progress) -> None:
        if progress.phase == "training":
            task.on_step(progress.step, progress.steps)

    bundle = task.bundle
    if task.concept.kind == "relationship":
        settings |= relation
    whole = TrainSettings.from_dict({**settings, "seed": task.seed})
    trainer = Trainer(
        bundle.tree, bundle.config, bundle.text, task.concepts, whole, on_step=on_step
    )
    return trainer.run().lora


def combined(task: Task, **settings: Any) -> EraserLora:
    """An eraser for every concept alone, their changes added (ranks stacked)."""
    parts = []
    for concept in task.concepts.concepts:
        alone = train(replace(task, concepts=ConceptSet((concept,))), **settings)
        parts.append(Part(alone.tensors(), 1.0, {}))
    return EraserLora.from_tensors(combine(parts), task.bundle.config)


def _settings(changes: dict[str, Any], relation: dict[str, Any]) -> dict[str, Any]:
    """The demo's with ``changes``; the seed is the task's."""
    settings = replace(demo_settings(), **changes).to_dict()
    del settings["seed"]
    return settings | {"relation": relation}


OURS = _settings(ROBUST, PLAIN | RELATION)
METHODS = (
    Method("ours", "EraseAnything (ours)", SOURCE, train, OURS),
    Method("ours-combined", "ours, single erasers added", SOURCE, combined, OURS),
    *(
        Method(name, label, SOURCE, train, _settings(changes, RELATION))
        for name, (label, changes) in ABLATIONS.items()
    ),
)
