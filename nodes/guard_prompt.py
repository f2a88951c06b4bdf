"""Guard Prompt: a prompt's states kept off the concepts that it names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.gate import WordGate
from ..erase_core.erasers.guards.sae import SaeSettings
from ..erase_core.erasers.guards.safree import Cleaned, SafreeSettings
from ..erase_core.errors import EraseError
from . import guarding, inputs, words
from .concept_parts import SOCKET

SAFREE, FEATURES = METHODS = ("safree", "sparse features")
EDGE = 1e-5  # the host compares ends of ranges strictly: two may not share one


class GuardPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        about = SafreeSettings.find("reach")
        return io.Schema(
            node_id="EraseAnythingGuardPrompt",
            display_name="Guard Prompt",
            category=inputs.CATEGORY,
            description="Keeps concepts out of a prompt that names them: its tokens are moved off "
            "them. Other prompts stay bit for bit. Any MODEL, nothing of it changes.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt."),
                io.Clip.Input("clip", tooltip="The CLIP that encoded it."),
                SOCKET.Input("concepts", tooltip="What is kept out."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How far tokens are moved; 0 is off.",
                ),
                io.Float.Input(
                    "reach",
                    default=SafreeSettings.reach,
                    min=about.low,
                    max=about.high,
                    step=about.step,
                    tooltip=f"safree: the {about.help}. The prompt as it was holds for the rest.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The prompt's text, if the node is to say which of its words changed.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=SAFREE,
                    optional=True,
                    tooltip="safree: tokens leave the space that the concept's names span. sparse "
                    "features: a small network learns, in a minute or so, what texts are made of; "
                    "what speaks of the concept alone is taken out.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The prompt off the concepts."),
                io.String.Output(
                    display_name="changed",
                    tooltip="The words that changed; without the text, how many tokens did.",
                ),
            ],
            **inputs.aliases("safree", "negative", "forget", "unlearn", "safety", "censor"),
        )

    @classmethod
    def execute(
        cls,
        conditioning: Any,
        clip: Any,
        concepts: ConceptSet,
        strength: float,
        reach: float,
        prompt: str = "",
        method: str = SAFREE,
    ) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(conditioning, "")
        told: list[dict[str, Any]] = []
        for name, clean in _cleaners(clip, concepts, method, strength, reach).items():
            entries = []
            for entry in conditioning:
                found = clean(*_states(entry, clip))
                entries += _ranges(entry, found)
                told += _said(name, found, clip, prompt)
            conditioning = entries
        changed = ", ".join(dict.fromkeys(word for row in told for word in row["words"]))
        return io.NodeOutput(conditioning, changed, ui={"eraseanything_guard_prompt": told})


Cleaner = Callable[[Tensor, Tensor | None], Cleaned]


def _cleaners(
    clip: Any, concepts: ConceptSet, method: str, strength: float, reach: float
) -> dict[str, Cleaner]:
    """What keeps a prompt's states and pooled vector off each concept, by its name."""
    if method == SAFREE:
        told = SafreeSettings(strength=strength, reach=reach)
        spaces = words.spaces(clip, concepts)
        return {name: partial(space.clean, settings=told) for name, space in spaces.items()}
    features = words.features(clip, concepts, SaeSettings())
    gates = words.word_gates(clip, concepts)

    def off(index: int, gate: WordGate, context: Tensor, pooled: Tensor | None) -> Cleaned:
        named = torch.zeros(len(context), len(gates), dtype=torch.bool)
        named[:, index] = gate.strength(context.cpu()) > 0
        rows = named[:, index]
        near = gate.near(context.cpu()) & rows[:, None]
        return Cleaned(*features.clean(context, pooled, named, strength), near, rows.float())

    return {name: partial(off, i, gate) for i, (name, gate) in enumerate(gates.items())}


def _states(entry: list[Any], clip: Any) -> tuple[Tensor, Tensor | None]:
    """The states and the pooled vector of an entry; EraseError when another CLIP encoded it."""
    states, more = entry
    if states.shape[-1] != words.states(guarding.prompt(clip, "")).shape[-1]:
        raise EraseError("This CLIP did not encode this prompt; connect the one that did.")
    return states, more.get("pooled_output")


def _ranges(entry: list[Any], found: Cleaned) -> list[list[Any]]:
    """The entry, or the changed one for the first steps and the entry as it is for the rest, inside
    the range that it has."""
    share = float(found.share.max())
    if share == 0:
        return [entry]
    states, more = entry
    start, end = more.get("start_percent", 0.0), more.get("end_percent", 1.0)
    clean = more | {"pooled_output": found.pooled} if found.pooled is not None else dict(more)
    if share >= end:
        return [[found.context, clean]]
    if share <= start:
        return [entry]
    return [
        [found.context, clean | {"start_percent": start, "end_percent": share - EDGE}],
        [states, more | {"start_percent": share, "end_percent": end}],
    ]


def _said(concept: str, found: Cleaned, clip: Any, prompt: str) -> list[dict[str, Any]]:
    """What the node shows of an entry: the words that changed for a concept."""
    near = found.near.any(0)
    if not near.any():
        return []
    spoken = _words(clip, prompt, near) if prompt.strip() else [f"{int(near.sum())} tokens"]
    return [{"concept": concept, "words": spoken, "share": round(float(found.share.max()), 3)}]


def _words(clip: Any, prompt: str, near: Tensor) -> list[str]:
    """The words of a prompt whose tokens are near, or "..." when only what surrounds them is."""
    found, length = [], len(near)
    for match in re.finditer(r"\S+", prompt):
        place = words.place(clip, prompt[: match.start()], match[0], prompt, length)
        if place is not None and bool(torch.any(near[place])):
            found.append(match[0].strip(".,;:!?"))
    return found or ["..."]
