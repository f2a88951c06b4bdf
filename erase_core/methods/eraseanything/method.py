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
    folders = task.folders
    if folders.resume:
        steps = settings.steps
        trainer = Trainer.resume(
            folders.resume, task.model, steps=steps, team=task.team, on_step=task.on_step
        )
    else:
        trainer = Trainer(
            task.model,
            task.concepts,
            replace(settings, seed=task.seed),
            pictures=task.pictures,
            checkpoint_dir=folders.checkpoints,
            replaces=folders.replaces,
            earlier=task.earlier,
            team=task.team,
            on_step=task.on_step,
        )
    return trainer.run(task.on_ready)


OURS = Method(
    "eraseanything",
    "EraseAnything (ours)",
    SOURCE,
    train,
    TrainSettings,
    product=True,
    preset="robust",
    several=TrainSettings.for_concepts,
    growing=TrainSettings.for_growing,
    cost=Cost(397, 0.94),
    is_run=True,
)
METHODS = (
    OURS,
    replace(
        OURS,
        name="ours-combined",
        label="ours, single erasers added",
        presets_of=OURS.name,
        added=True,
        growing=None,
        product=False,
        cost=None,
        is_run=False,
    ),
    *(
        replace(
            OURS,
            name=name,
            label=label,
            own=own,
            presets_of=OURS.name,
            preset="balanced",
            product=False,
            cost=None,
        )
        for name, (label, own) in ABLATIONS.items()
    ),
)
