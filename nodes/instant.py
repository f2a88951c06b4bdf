"""Erase Concept (instant)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy_api.latest import io

from ..erase_core import api
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.methods.base import Folders, methods
from ..erase_core.tensors import read_tensors
from ..erase_core.training.encoding import Work, cache_folder
from ..erase_core.training.progress import Progress
from ..erase_core.writing import claim
from . import hosts, inputs, places
from .eraser import SOCKET, Eraser, apply
from .live import PhaseBar, say

DEFAULT = "uce"


class Instant(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingInstant",
            display_name="Erase Concept (instant)",
            category=inputs.CATEGORY,
            description=(
                "Makes a FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 or Chroma model forget "
                "what the concept set names, without training. It takes a second once the prompts "
                "are encoded. The eraser is saved to the LoRA list."
            ),
            inputs=inputs.advanced(_inputs(), "rank", "folder"),
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **inputs.aliases("unlearn", "erase", "forget concept", "closed form", "UCE", "SPEED"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: ConceptSet,
        method: str,
        strength: float,
        rank: int,
        prompts: int,
        seed: int,
        filename_prefix: str,
        folder: str,
    ) -> io.NodeOutput:
        prefix = filename_prefix.replace("%concept%", places.named_after(concepts))
        path = places.free_name(places.lora_folder(folder), prefix)
        changes = {"rank": rank} | ({"prompts": prompts} if prompts else {})
        folders = Folders(states=cache_folder())
        order = api.Order(concepts, method, "", changes, seed, folders=folders)
        told = _Told(cls.hidden.unique_id, model)
        with claim(path), hosts.training():
            opened = hosts.open_model(model, clip)
            if opened.family.notice:
                say(cls.hidden.unique_id, opened.family.notice)
            erased = api.erase(opened, order, path, on_encode=told.work, on_step=told.step)
        tensors, metadata = read_tensors(path)
        eraser = Eraser({name: tensor.clone() for name, tensor in tensors.items()}, metadata)
        about = _about(path, erased.result.seconds, erased.result.measured)
        say(cls.hidden.unique_id, _ending(about))
        file = about["file"]
        shown = {"eraseanything_instant": [about]}
        return io.NodeOutput(apply(model, eraser, strength), clip, eraser, file, ui=shown)


class _Told:
    """Says on the node what is done, and loads the MODEL once its prompts are encoded, since its
    text encoders may have pushed it out."""

    def __init__(self, node: str, model: Any) -> None:
        self.node, self.model = node, model
        self.bar = PhaseBar()

    def work(self, work: Work) -> None:
        """The prompts are counted."""
        say(self.node, str(work))
        if work.known == work.prompts:
            hosts.load(self.model)

    def step(self, progress: Progress) -> None:
        """Some are encoded, or a matrix is solved for."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if progress.phase == "text" and progress.step == progress.steps:
            hosts.load(self.model)
        self.bar.update(progress)


def _about(
    path: Path, seconds: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, Any]:
    """What the front end gets to see."""
    return {
        "file": places.lora_name(path),
        "path": str(path),
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "missed": {name: round(value, 4) for name, value in measured.items()},
    }


def _ending(about: Mapping[str, Any]) -> str:
    told = f"saved as {about['file']} in {sum(about['seconds'].values()):.1f} s"
    missed = max(about["missed"].values(), default=0.0)
    return told + (f"; the LoRA misses {100 * missed:.2g} % of the edit" if missed else "")


def _inputs() -> list[Any]:
    return [
        *inputs.erased_inputs(),
        io.Combo.Input(
            "method",
            options=[name for name, m in methods().items() if m.product and not m.forward],
            default=DEFAULT,
            tooltip="How to solve. docs/instant.md compares them.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip="How much of the eraser the MODEL gets. The file holds all of it.",
        ),
        io.Int.Input(
            "rank",
            default=0,
            min=0,
            max=4096,
            tooltip="0: the edit of whole matrices. Else a LoRA of this rank, smaller; the node "
            "says what it misses.",
        ),
        io.Int.Input(
            "prompts",
            default=0,
            min=0,
            max=10_000,
            tooltip="Sentences with each concept. 0: 48, fewer of many concepts. T5-XXL takes "
            "seconds for each without a card: fewer are faster, and less exact.",
        ),
        *inputs.eraser_inputs(),
    ]


def _outputs() -> list[Any]:
    return [
        io.Model.Output(display_name="model", tooltip="The model with the eraser applied."),
        io.Clip.Output(display_name="clip", tooltip="The text encoders, as they were."),
        SOCKET.Output(
            display_name="lora",
            tooltip="The eraser, for Load LoRA Model, Erasure Preview and Combine Erasers.",
        ),
        io.String.Output(display_name="file", tooltip="The file as the LoRA list names it."),
    ]
