"""Erase Settings: what goes beyond the inputs of Erase Concept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..erase_core import miniflux
from ..erase_core.commands.settings import BASIC, EXPERT
from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.errors import EraseError
from ..erase_core.flux.config import FluxConfig
from ..erase_core.losses import RscVariant
from ..erase_core.training import TrainSettings
from ..erase_core.training.settings import NullPrompt, RolloutPrompt
from . import host

# What suits FLUX.1: some 100 GB of activations would be kept for a batch of 8; recomputed, 6 GB.
FLUX_SETTINGS = TrainSettings(width=512, height=512, activation_checkpointing=True)
# Name -> lowest, highest and step of a number, in the order of the node.
RANK = {"rank": (1, 256, 1), "alpha": (0, 256, 0.5)}
LOSSES = {
    "batch": (1, 256, 1),
    "lr_low": (0, 1, 1e-5),
    "lr_up": (0, 1, 1e-5),
    "eta": (0, 10, 0.05),
    "l_esd": (0, 1000, 0.05),
    "l_attn": (0, 1000, 0.05),
    "l_lora": (0, 1000, 0.05),
    "l_rsc": (0, 1000, 0.05),
    "l_adv": (0, 1000, 0.5),
    "tau": (0.001, 10, 0.005),
}
STATES = {
    "k": (1, 32, 1),
    "guidance_rollout": (0, 100, 0.1),
    "guidance_train": (0, 100, 0.1),
    "rollout_steps": (1, 1000, 1),
    "erase_rollouts": (1, 10_000, 1),
    "keep_rollouts": (1, 10_000, 1),
    "refresh_every": (0, 10_000, 1),
    "shuffle": (0, 1, 0.05),
    "checkpoint_every": (0, 100_000, 1),
    "keep_checkpoints": (1, 100, 1),
}
# Where a widget needs other words than the command line has.
WORDS = {
    "alpha": "alpha of the LoRA; 0: the rank",
    "attention_blocks": "double blocks whose attention counts, e.g. 17 18; empty: the last",
    "null": "what stands for nothing in Eq. 2: the empty prompt, the sentence without the concept, "
    "or with another word in its place; auto: empty for things, else without",
    "anchor": "the word that replaces the concept with null = replace; empty: a relative, from the "
    "irrelevant words",
    "rollout_prompt": "whose pictures erasing looks at on their way: the concept's, or those of "
    "what stands for nothing, which an eraser has to arrive at",
    "activation_checkpointing": "recompute in the backward pass: less memory, more time",
}


class Settings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingSettings",
            display_name="Erase Settings",
            category=host.CATEGORY,
            description="Everything that Erase Concept can be told beyond its own inputs. The "
            "values shown suit FLUX.1; without this node MiniFlux gets its own.",
            inputs=_inputs(),
            outputs=[
                io.Custom("ERASE_SETTINGS").Output(
                    display_name="settings", tooltip="For Erase Concept."
                )
            ],
            **host.aliases("training settings", "learning rate", "rank"),
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        for name in ("targets", "attention_blocks"):
            items = values[name].replace(",", " ").split()
            values[name] = tuple(items) if name == "targets" else tuple(map(_whole, items)) or None
        values["alpha"] = values["alpha"] or None
        TrainSettings(**values)  # says at once what cannot be
        return io.NodeOutput(values)


def plan_for(
    model: Any,
    config: FluxConfig,
    concepts: ConceptSet,
    given: Mapping[str, int],
    more: Mapping[str, Any],
) -> TrainSettings:
    """The MODEL's own settings for these concepts, changed by Erase Settings (``more``; what
    several concepts raise and it leaves at its default stays raised) and by what Erase Concept was
    ``given`` (0: unsaid, but for the seed)."""
    several = FLUX_SETTINGS.for_concepts(len(concepts.concepts))
    more = {
        name: value
        for name, value in more.items()
        if value == getattr(several, name) or value != getattr(FLUX_SETTINGS, name)
    }
    own = miniflux.train_settings(concepts) if host.is_miniflux(config) else several
    said = {name: value for name, value in given.items() if value or name == "seed"}
    return replace(own, shift_mu=host.shift(model), **more, **said)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise EraseError(f'attention_blocks holds "{text}"; write block numbers such as 17 18.')
    return int(text)


def _inputs() -> list[Any]:
    """Inputs named as the fields of TrainSettings, with their defaults for FLUX.1."""
    return [
        *(_number(name, *limits) for name, limits in RANK.items()),
        _text("targets", " ".join(FLUX_SETTINGS.targets)),
        *(_number(name, *limits) for name, limits in LOSSES.items()),
        _choice("rsc", get_args(RscVariant)),
        _text("attention_blocks", ""),
        _choice("null", get_args(NullPrompt)),
        _text("anchor", FLUX_SETTINGS.anchor),
        _choice("rollout_prompt", get_args(RolloutPrompt)),
        *(_number(name, *limits) for name, limits in STATES.items()),
        io.Boolean.Input(
            "activation_checkpointing",
            default=FLUX_SETTINGS.activation_checkpointing,
            tooltip=_tooltip("activation_checkpointing"),
        ),
        _number("max_grad_norm", 0.001, 1000, 0.1),
    ]


def _tooltip(name: str) -> str:
    text = (BASIC | EXPERT | WORDS)[name]
    return f"{text[0].upper()}{text[1:]}."


def _number(name: str, low: float, high: float, step: float) -> Any:
    default, tooltip = getattr(FLUX_SETTINGS, name), _tooltip(name)
    limits = {"min": low, "max": high, "step": step}
    if isinstance(default, int):
        return io.Int.Input(name, default=default, tooltip=tooltip, **limits)
    return io.Float.Input(name, default=default or 0.0, round=1e-6, tooltip=tooltip, **limits)


def _text(name: str, default: str) -> Any:
    return io.String.Input(name, default=default, tooltip=_tooltip(name))


def _choice(name: str, options: tuple[str, ...]) -> Any:
    default = getattr(FLUX_SETTINGS, name)
    return io.Combo.Input(name, options=list(options), default=default, tooltip=_tooltip(name))
