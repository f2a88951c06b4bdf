"""Inputs that several nodes have, and the words that their search knows."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

from .places import MODELS, OUTPUT

CATEGORY = "EraseAnything"
ENCODERS = (  # a tooltip
    "Its text encoders: CLIP-L and T5, of SD3.5 CLIP-G, too, of Chroma T5 alone, of FLUX.2 klein "
    "and Z-Image Qwen3, of Qwen-Image Qwen2.5-VL."
)


def aliases(*words: str) -> dict[str, list[str]]:
    """Search words for a node's schema, where the host knows them (not yet in 0.3.64)."""
    known = inspect.signature(io.Schema).parameters
    return {"search_aliases": list(words)} if "search_aliases" in known else {}


def advanced(items: list[Any], *names: str) -> list[Any]:
    """The inputs, those of these names behind the node's "Show advanced inputs"."""
    for item in items:
        if item.id in names:
            item.extra_dict = {**item.extra_dict, "advanced": True}
    return items


def seed(most: int, tooltip: str, **more: Any) -> Any:
    """A seed that stays as it is: the host would else draw a new one, and train anew, every run."""
    return io.Int.Input(
        "seed", default=0, min=0, max=most, control_after_generate=False, tooltip=tooltip, **more
    )


def pixels_input(name: str) -> Any:
    """The "width" or the "height" of pictures."""
    tooltip = f"{name.capitalize()} in pixels. 0: what suits the model."
    return io.Int.Input(name, default=0, min=0, max=4096, step=16, tooltip=tooltip)


def steps_input() -> Any:
    """How many steps a picture takes."""
    return io.Int.Input("steps", default=28, min=1, max=1000, tooltip="Sampling steps.")


def guidance_input() -> Any:
    """The guidance input of distilled models, or the scale of a negative prompt."""
    tooltip = (
        "FLUX.1-dev's guidance; of Chroma, FLUX.2 klein, Z-Image, Qwen-Image and SD3.5 the CFG "
        "scale, with an empty negative prompt. 1 for a distilled klein or SD3.5, in 4 steps, and "
        "Z-Image-Turbo, in 8."
    )
    return io.Float.Input("guidance", default=3.5, min=0.0, max=100.0, step=0.1, tooltip=tooltip)


def name_input(default: str, more: str = "") -> Any:
    """What a saved file is called."""
    tooltip = f"Name of the LoRA file, perhaps with a subfolder; a number is added.{more}"
    return io.String.Input("filename_prefix", default=default, tooltip=tooltip)


def folder_input() -> Any:
    """Which of the two folders of LoRAs a file goes to."""
    return io.Combo.Input(
        "folder",
        options=[MODELS, OUTPUT],
        default=MODELS,
        tooltip="Where the file goes. The LoRA list shows both folders.",
    )


def erased_inputs() -> list[Any]:
    """What a node that makes an eraser begins with: the model, its text encoders, the concepts."""
    return [
        io.Model.Input(
            "model",
            tooltip="The FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 or Chroma model that is "
            "to forget. It may carry LoRAs, and comes back exactly as it was.",
        ),
        io.Clip.Input("clip", tooltip=ENCODERS),
        io.Custom("ERASE_CONCEPTS").Input(
            "concepts", tooltip="What to forget and what to keep, from a Concept Set."
        ),
    ]


def eraser_inputs() -> list[Any]:
    """What decides an eraser's draws, and where its file goes."""
    return [
        seed(
            2**63 - 1,
            "Seed of every draw. The same seed gives the same file, on a CPU with as many threads.",
        ),
        name_input("eraser_%concept%", " %concept% is what is erased."),
        folder_input(),
    ]
