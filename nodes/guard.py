"""Erase Guard: a concept kept out of pictures while they are drawn, without training."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.dve import DveSettings, anchor_of, take_out
from . import guarding, inputs
from .concepts import SOCKET
from .guarding import Step, Told

METHODS = ("dve",)


class Guard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        about = DveSettings.about()
        return io.Schema(
            node_id="EraseAnythingGuard",
            display_name="Erase Guard",
            category=inputs.CATEGORY,
            description="Keeps concepts out of pictures while they are drawn: no training, any "
            "MODEL, off at strength 0. Put it between the MODEL and the sampler; guards in a row "
            "act from first to last.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any MODEL; it stays as it is. LoRAs may come before or after."
                ),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompts."),
                SOCKET.Input("concepts", tooltip="What is kept out."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="dve: at every step, takes the concept's direction out of what the "
                    "model predicts. Costs two more passes a concept and step.",
                ),
                _share("strength", "How much is taken out; 0 is off.", 1.0, 10.0, 0.05),
                _share("start", "Where it begins, a share of all steps.", 0.0, 1.0, 0.01),
                _share("end", "Where it ends, a share of all steps.", 1.0, 1.0, 0.01),
                io.Float.Input(
                    "threshold",
                    default=DveSettings.threshold,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    optional=True,
                    tooltip="Pictures that lean less to the concept are left as they are.",
                ),
                io.String.Input(
                    "anchor",
                    default="",
                    optional=True,
                    tooltip=about["anchor"].help,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The MODEL, guarded.")],
            hidden=[io.Hidden.unique_id],
            **inputs.aliases("negative", "forget", "unlearn", "safety", "censor", "nag"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: ConceptSet,
        method: str,
        strength: float,
        start: float,
        end: float,
        threshold: float = 0.0,
        anchor: str = "",
    ) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model)
        settings = DveSettings(strength, start, end, threshold, anchor.strip())
        told = Told(str(cls.hidden.unique_id), method)
        return io.NodeOutput(guarding.guarded(model, Dve(clip, concepts, settings), told))


class Dve:
    """DVE in the host; a :class:`~.guarding.Acting`."""

    def __init__(self, clip: Any, concepts: ConceptSet, settings: DveSettings) -> None:
        self.settings = settings
        self.pairs = {c.name: (c.name, anchor_of(c, settings.anchor)) for c in concepts.concepts}
        texts = dict.fromkeys(text for pair in self.pairs.values() for text in pair)
        self._conds = {text: guarding.prompt(clip, text) for text in texts}

    def prompts(self) -> dict[str, Any]:
        return self._conds

    def begin(self, conds: dict[str, Any], model: Any) -> None:
        """Nothing: every step speaks for itself."""

    def act(self, step: Step) -> tuple[Tensor, dict[str, list[float]]]:
        ours, names = step.again(), list(self._conds)
        found = dict(zip(names, step.predict(names), strict=True))
        parts = {}
        for name, (concept, anchor) in self.pairs.items():
            ends = found[concept], found[anchor]
            ours, part = take_out(ours, *ends, self.settings.strength, self.settings.threshold)
            parts[name] = part.tolist()
        return ours, parts

    def end(self) -> None:
        """Nothing is held."""


def _share(name: str, tooltip: str, default: float, high: float, step: float) -> Any:
    return io.Float.Input(name, default=default, min=0.0, max=high, step=step, tooltip=tooltip)
