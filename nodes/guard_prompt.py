"""Guard Prompt: a prompt's states kept off concepts, for as many of the first steps as it needs."""

from __future__ import annotations

import re
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.safree import Cleaned, SafreeSettings, Space
from ..erase_core.errors import EraseError
from . import inputs, words
from .concept_parts import SOCKET

EDGE = 1e-5  # the host compares ends of ranges strictly: two may not share one


class GuardPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        about = SafreeSettings.find("reach")
        return io.Schema(
            node_id="EraseAnythingGuardPrompt",
            display_name="Guard Prompt",
            category=inputs.CATEGORY,
            description="Keeps concepts out of a prompt (SAFREE): tokens that lie near a concept "
            "are moved off it, all others stay bit for bit. No training, any MODEL.",
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
                    tooltip="How far near tokens are moved; 0 is off.",
                ),
                io.Float.Input(
                    "reach",
                    default=SafreeSettings.reach,
                    min=about.low,
                    max=about.high,
                    step=about.step,
                    tooltip=f"The {about.help}. The prompt as it was holds for the rest.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The prompt's text, if the node is to say which of its words changed.",
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
    ) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(conditioning, "")
        settings = SafreeSettings(strength=strength, reach=reach)
        told: list[dict[str, Any]] = []
        for name, space in words.spaces(clip, concepts).items():
            entries = []
            for entry in conditioning:
                found = _cleaned(entry, space, settings)
                entries += _ranges(entry, found)
                told += _said(name, found, clip, prompt)
            conditioning = entries
        changed = ", ".join(dict.fromkeys(word for row in told for word in row["words"]))
        return io.NodeOutput(conditioning, changed, ui={"eraseanything_guard_prompt": told})


def _cleaned(entry: list[Any], space: Space, settings: SafreeSettings) -> Cleaned:
    """An entry off a concept; EraseError when another CLIP encoded it."""
    states, more = entry
    if states.shape[-1] != len(space.mean):
        raise EraseError("This CLIP did not encode this prompt; connect the one that did.")
    return space.clean(states, more.get("pooled_output"), settings)


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
