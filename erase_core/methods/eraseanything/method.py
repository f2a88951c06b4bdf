"""EraseAnything as this package does it, and its ablations.

Gao et al., *EraseAnything*, ICML 2025 (arXiv 2412.20413), Algorithm 1: the bi-level training of
:class:`.trainer.Trainer` with the four losses of Eq. 2 to 5, and the settings that
``train`` and the nodes give MiniFlux: adversaries inside the erase step, and the image stream's
attention, without which the text side alone cannot meet them. "ours-plain" is what the demo takes,
without either; the ablations are those of the paper's table on top of it: a loss that is not named
has weight 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...concepts.sets import ConceptSet
from ...erasers.combine import Part, combine
from ...erasers.lora import EraserLora
from ...training.result import Result
from ..base import Cost, Method, Task
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


def train(task: Task, settings: TrainSettings) -> Result:
    """Algorithm 1."""
    if task.resume:
        steps = settings.steps
        trainer = Trainer.resume(task.resume, task.model, steps=steps, on_step=task.on_step)
        trainer.pictures = task.pictures or trainer.pictures
    else:
        trainer = Trainer(
            task.model,
            task.concepts,
            replace(settings, seed=task.seed),
            pictures=task.pictures,
            checkpoint_dir=task.checkpoints,
            replaces=task.replaces,
            on_step=task.on_step,
        )
    return trainer.run(task.on_ready)


def combined(task: Task, settings: TrainSettings) -> EraserLora:
    """An eraser for every concept alone, their changes added (ranks stacked).

    Only the last one could let the encoders go, and no checkpoint speaks for several runs.
    """
    task = replace(task, on_ready=lambda run: None, checkpoints=None)
    parts = []
    for concept in task.concepts.concepts:
        alone = replace(task, concepts=ConceptSet((concept,)))
        made = OURS.erase(alone).eraser
        assert made is not None
        parts.append(Part(made.tensors(), 1.0, {}))
    return EraserLora.from_tensors(combine(parts), task.model.family.linears(task.model.config))


OURS = Method(
    "eraseanything",
    "EraseAnything (ours)",
    SOURCE,
    train,
    TrainSettings,
    product=True,
    preset="robust",
    several=TrainSettings.for_concepts,
    cost=Cost(397, 0.94),
    finds_room=True,
)
METHODS = (
    OURS,
    replace(
        OURS,
        name="ours-combined",
        label="ours, single erasers added",
        run=combined,
        presets=OURS.name,
        product=False,
        cost=None,
        finds_room=False,
    ),
    *(
        replace(
            OURS,
            name=name,
            label=label,
            own=own,
            presets=OURS.name,
            preset="balanced",
            product=False,
            cost=None,
        )
        for name, (label, own) in ABLATIONS.items()
    ),
)
