"""Erase Settings: what Erase Concept does otherwise than its preset says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..erase_core.errors import EraseError
from ..erase_core.methods.eraseanything.settings import EACH, TrainSettings
from ..erase_core.settings import PRESETS, About
from . import inputs

UNSET = -1  # of a number: the preset's value
AS_PRESET = "preset"  # of a choice
DEFAULT_PRESET = "default"
ELSEWHERE = ("steps", "height", "width", "seed", "shift_mu")  # Erase Concept and the model say them
SHOWN = ("batch", "eta", "l_lora", "l_adv")  # worth knowing
ADVANCED = [name for name in TrainSettings.about() if name not in SHOWN]
RAISED = {*EACH, "rank"}  # by several concepts, unless they are set to something else


class Settings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingSettings",
            display_name="Erase Settings",
            category=inputs.CATEGORY,
            description="What Erase Concept is to do otherwise than its preset says. What is left "
            "unset (-1, empty, preset) stays as the preset has it for the model and the concepts.",
            inputs=inputs.advanced(_inputs(), *ADVANCED),
            outputs=[
                io.Custom("ERASE_SETTINGS").Output(
                    display_name="settings", tooltip="For Erase Concept."
                )
            ],
            **inputs.aliases("training settings", "learning rate", "rank"),
        )

    @classmethod
    def execute(cls, preset: str = DEFAULT_PRESET, **values: Any) -> io.NodeOutput:
        about = TrainSettings.about()
        said = {name: value for name, value in values.items() if not _unset(value)}
        for name in said:
            if about[name].many:
                said[name] = _list(name, said[name], about[name])
        if said.get("alpha") == 0:
            said["alpha"] = None
        TrainSettings().changed(said)  # says at once what cannot be
        return io.NodeOutput({"preset": "" if preset == DEFAULT_PRESET else preset, **said})


def changes(settings: Mapping[str, Any], concepts: int) -> dict[str, Any]:
    """What Erase Settings say for so many concepts; workflows of the first version carry every
    default, which several concepts raise."""
    plain = TrainSettings()
    return {
        name: value
        for name, value in settings.items()
        if name != "preset"
        and not (concepts > 1 and name in RAISED and value == getattr(plain, name))
    }


def _unset(value: Any) -> bool:
    """Whether a widget leaves its setting to the preset; 0 is a value."""
    return value in (UNSET, "", AS_PRESET) or value is False


def _list(name: str, text: str, about: About) -> tuple[Any, ...]:
    items = text.replace(",", " ").split()
    try:
        return tuple(about.kind(item) for item in items)
    except ValueError:
        raise EraseError(f'{name} holds "{text}"; write numbers such as 17 18.') from None


def _inputs() -> list[Any]:
    """Inputs named as the settings of a run, all unset; the preset comes last, since workflows
    hold the others by their place."""
    about = {n: a for n, a in TrainSettings.about().items() if n not in ELSEWHERE}
    return [
        *(_input(name, item) for name, item in about.items()),
        io.Combo.Input(
            "preset",
            options=[DEFAULT_PRESET, *PRESETS],
            default=DEFAULT_PRESET,
            optional=True,
            tooltip="Where all that is unset comes from. default: what suits the model best.",
        ),
    ]


def _input(name: str, about: About) -> Any:
    tooltip = f"{about.help[0].upper()}{about.help[1:]}."
    if about.choices:
        options, tooltip = [AS_PRESET, *about.choices], f"{tooltip} {AS_PRESET}: the preset's."
        return io.Combo.Input(name, options=options, default=AS_PRESET, tooltip=tooltip)
    if about.kind is bool:
        return io.Boolean.Input(
            name, default=False, tooltip=f"{tooltip} Off: where memory is short."
        )
    if about.many or about.kind is str:
        return io.String.Input(name, default="", tooltip=f"{tooltip} Empty: the preset's.")
    limits = {"min": UNSET, "max": min(about.widest, about.high), "step": about.step}
    if about.kind is int:
        limits = {key: int(value) for key, value in limits.items()}
        return io.Int.Input(name, default=UNSET, tooltip=f"{tooltip} -1: the preset's.", **limits)
    tooltip = f"{tooltip} -1: the preset's."
    return io.Float.Input(name, default=UNSET, round=1e-6, tooltip=tooltip, **limits)
