"""Every training setting as an option of its own."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import EraseError

if TYPE_CHECKING:
    from ..methods.eraseanything.settings import TrainSettings

# Option -> what it says; its type is that of the setting's default.
BASIC = {
    "steps": "iterations, an erasing and a preserving half-step each",
    "lr_low": "learning rate of erasing",
    "lr_up": "learning rate of preserving",
    "rank": "rank of the LoRA",
    "targets": "what the LoRA changes; also add_v_proj to_add_out image_attention single_blocks "
    "vector_in",
    "batch": "states in each half-step; fewer need less memory",
    "height": "of the pictures in training, pixels (default: the model's)",
    "width": "of the pictures in training, pixels (default: the model's)",
    "seed": "seed of every draw",
}
EXPERT = {
    "alpha": "of the LoRA (default: the rank)",
    "eta": "how far erasing pushes past the null prompt (Eq. 2)",
    "l_esd": "weight of L_esd: forget",
    "l_attn": "weight of L_attn: take the concept's attention away",
    "l_lora": "weight of L_lora: keep the rest",
    "l_rsc": "weight of L_rsc: away from synonyms",
    "l_adv": "weight of forgetting under learned adversarial prompts",
    "tau": "temperature of L_rsc",
    "rsc": "L_rsc as the paper's text has it (text), or the released code (official)",
    "attention_blocks": "double blocks whose attention counts (default: the last)",
    "null": "what stands for nothing in Eq. 2: auto, empty, without or replace",
    "anchor": "word that replaces the concept with --null replace",
    "rollout_prompt": "whose pictures erasing looks at on their way: concept or null",
    "k": "irrelevant words a sentence in L_rsc",
    "guidance_rollout": "guidance while drawing states (dev only)",
    "guidance_train": "guidance while training (dev only)",
    "shift_mu": "shift of the schedule (default: the model's)",
    "rollout_steps": "steps of a rollout",
    "erase_rollouts": "rollouts of sentences to erase",
    "keep_rollouts": "rollouts of sentences to keep",
    "refresh_every": "iterations between rollouts of the student (0: none)",
    "shuffle": "probability that a sentence's phrases are shuffled",
    "checkpoint_every": "iterations between checkpoints (0: none)",
    "keep_checkpoints": "checkpoints that are kept",
    "max_grad_norm": "gradients are clipped to this norm",
}
_LISTS: dict[str, type] = {"targets": str, "attention_blocks": int}
_TEXTS = ("rsc", "null", "anchor", "rollout_prompt")


class WithDefaults(argparse.RawDescriptionHelpFormatter):
    """Adds the defaults of the settings to their help, when it is printed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        from ..methods.eraseanything.settings import TrainSettings

        default = getattr(TrainSettings(), action.dest, None)
        if default in (None, "") or action.help is None or "(default" in action.help:
            return action.help
        shown = " ".join(default) if isinstance(default, tuple) else default
        return f"{action.help} (default {shown})"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """All settings, the usual ones first; None stands for "not given"."""
    for title, options in (("settings", BASIC), ("settings for experts", EXPERT)):
        group = parser.add_argument_group(title)
        for name, text in options.items():
            _add(group, name, text)
    group.add_argument(
        "--activation-checkpointing",
        action="store_const",
        const=True,
        help="recompute in the backward pass: less memory, more time",
    )


def _add(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    if name in _LISTS:
        group.add_argument(flag, nargs="+", type=_LISTS[name], metavar="X", help=text)
    else:
        kind = str if name in _TEXTS else number
        group.add_argument(flag, type=kind, metavar="X", help=text)


def number(text: str) -> int | float:
    """A whole number where it looks like one; the settings themselves check that it fits."""
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def read_settings(args: argparse.Namespace, base: TrainSettings) -> TrainSettings:
    """``base`` with what the command line says."""
    given: dict[str, Any] = {}
    for name in (*BASIC, *EXPERT, "activation_checkpointing"):
        value = getattr(args, name)
        if value is not None:
            given[name] = tuple(value) if isinstance(value, list) else value
    return replace(base, **given)


def refuse_settings(args: argparse.Namespace) -> None:
    """A resumed run keeps its settings, all but the number of steps.

    Raises
    ------
    EraseError
        When another setting is given.
    """
    for name in [*BASIC, *EXPERT, "activation_checkpointing"]:
        if name != "steps" and getattr(args, name) is not None:
            flag = name.replace("_", "-")
            raise EraseError(f"A resumed run keeps its settings; leave --{flag} out.")
