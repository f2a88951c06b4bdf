"""Erase Guard: a concept kept out of pictures while they are drawn, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.dve import DveSettings
from ..erase_core.erasers.guards.gate import VelocityGateSettings, WordGateSettings
from ..erase_core.erasers.guards.irece import IreceSettings
from ..erase_core.settings import Settings
from . import eraser, guarding, inputs
from .acting import ByVelocities, ByWords, Dve
from .concept_parts import SOCKET
from .forward_side import ForwardSide
from .guarding import Acting, Told
from .redrawing import Irece

DVE, WORDS, VELOCITIES, IRECE = METHODS = ("dve", "word gate", "velocity gate", "irece")
ADVANCED = ("start", "end", "threshold", "anchor", "words", "least", "every", "limit")


class Guard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingGuard",
            display_name="Erase Guard",
            category=inputs.CATEGORY,
            description="Keeps concepts out of pictures while they are drawn: no training, any "
            "MODEL, off at strength 0. Put it between the MODEL and the sampler; guards in a row "
            "act from first to last.",
            inputs=inputs.advanced(_inputs(), *ADVANCED),
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
        lora: Mapping[str, Tensor] | None = None,
        lora_file: str = eraser.NONE,
        words: bool = DveSettings.words,
        least: float = DveSettings.least,
        every: int = DveSettings.every,
        limit: float = IreceSettings.limit,
    ) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model)
        told = Told(str(cls.hidden.unique_id), method)
        if method == DVE:
            more = (threshold, anchor.strip(), words, least, every)
            settings = DveSettings(strength, start, end, *more)
            return io.NodeOutput(guarding.guarded(model, Dve(clip, concepts, settings), told))
        if method == IRECE:
            own = IreceSettings(strength, start, end, limit)
            return io.NodeOutput(guarding.guarded(model, Irece(clip, concepts, own), told))
        side = ForwardSide(model, eraser.require(lora, lora_file))
        acting: Acting = (
            ByWords(clip, concepts, WordGateSettings(strength, start, end), side)
            if method == WORDS
            else ByVelocities(clip, concepts, VelocityGateSettings(strength, start, end), side)
        )
        return io.NodeOutput(guarding.guarded(model, acting, told))


def _inputs() -> list[Any]:
    return [
        io.Model.Input(
            "model", tooltip="Any MODEL; it stays as it is. LoRAs may come before or after."
        ),
        io.Clip.Input("clip", tooltip="The CLIP that encodes the prompts."),
        SOCKET.Input("concepts", tooltip="What is kept out."),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default=METHODS[0],
            tooltip="dve: at every step, takes the concept's direction out of what the model "
            "predicts, where the prompt names it. word gate: an eraser that acts only where the "
            "prompt names the concept. velocity gate: an eraser that acts where it changes the "
            "first steps as it changes the concept's own. irece: begins anew, once, the places "
            "that pay attention to the concept; for pictures that come from other pictures.",
        ),
        _share("strength", "How much is taken out; 0 is off.", 1.0, 10.0, 0.05),
        _share("start", "Where it begins, a share of all steps.", 0.0, 1.0, 0.01),
        _share("end", "Where it ends, a share of all steps.", 1.0, 1.0, 0.01),
        _number(
            DveSettings,
            "threshold",
            "dve: pictures that lean less to the concept are left as they are.",
        ),
        io.String.Input(
            "anchor", default="", optional=True, tooltip=f"dve: {DveSettings.find('anchor').help}."
        ),
        *eraser.inputs(),
        io.Boolean.Input(
            "words",
            default=DveSettings.words,
            optional=True,
            tooltip="dve: act on prompts alone that name the concept; all others stay bit for bit "
            "and cost nothing. Off: act on what the pictures themselves lean to.",
        ),
        _number(
            DveSettings,
            "least",
            "dve, with words: the least part taken out of prompts that name the concept.",
        ),
        _number(
            DveSettings, "every", "dve: steps that one direction serves; more are cheaper.", io.Int
        ),
        _number(
            IreceSettings,
            "limit",
            "irece: least attention of a place that is begun anew, a share of the highest. It "
            "happens at the first step after start.",
        ),
    ]


def _share(name: str, tooltip: str, default: float, high: float, step: float) -> Any:
    return io.Float.Input(name, default=default, min=0.0, max=high, step=step, tooltip=tooltip)


def _number(of: type[Settings], name: str, tooltip: str, kind: Any = io.Float) -> Any:
    """A setting of a method as an input, with the setting's own default and limits."""
    about = of.find(name)
    return kind.Input(
        name,
        default=getattr(of, name),
        min=about.low,
        max=about.high,
        step=about.step,
        optional=True,
        tooltip=tooltip,
    )
