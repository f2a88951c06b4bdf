"""FLUX.2 klein in the host: its transformer as a tree that can be trained through, Qwen3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_base

from ...erase_core.models.flux2 import FAMILY
from ...erase_core.models.flux2.config import Flux2Config
from ...erase_core.models.flux2.load import check_klein
from ...erase_core.models.flux2.names import skeleton
from ...erase_core.models.flux2.text import LENGTH, NEGATIVE, TEMPLATE
from ...erase_core.models.flux2.tree import Flux2
from .base import Host, kind_of, refuse_unknown
from .layers import check_blocks, filled
from .qwen import QwenText

ADVICE = "connect a FLUX.2-klein text-to-image model"


def owns(model: Any) -> bool:
    """Whether a MODEL is a FLUX.2, which hosts before November 2025 lack."""
    return kind_of(model) is getattr(comfy.model_base, "Flux2", "")


def refuse_in_old_hosts(path: Path) -> None:
    """EraseError for a file of FLUX.2 in a host that has none."""
    refuse_unknown(path, FAMILY, hasattr(comfy.model_base, "Flux2"))


def sizes(model: Any) -> Flux2Config:
    """The sizes of a klein MODEL; EraseError when its weights are not to be seen, or for dev."""
    check_blocks(model, ADVICE)
    config = Flux2Config.from_tree(model.model.diffusion_model)
    check_klein(config, f"This MODEL is FLUX.2-dev, whose text encoder is not read; {ADVICE}.")
    return config


def tree(model: Any, config: Flux2Config) -> Flux2:
    """A FLUX.2 with the core's names that computes with the MODEL's own layers and can be trained
    on; EraseError when it computes in float16."""
    return filled(skeleton(config), model)


def shift(model: Any) -> float | None:
    """The shift of the MODEL's noise schedule, a mu; None for a schedule without one."""
    found = getattr(model.get_model_object("model_sampling"), "shift", None)
    return None if found is None else float(found)


class Text(QwenText):
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    EraseError when the CLIP is not klein's Qwen3.
    """

    template, negative, length = TEMPLATE, NEGATIVE, LENGTH
    not_ours = (
        "This CLIP is not FLUX.2 klein's Qwen3; load qwen_3_4b or qwen_3_8b with CLIPLoader (Load "
        "CLIP), type flux2."
    )
    wrong_size = "This CLIP belongs to another MODEL; klein-4B needs qwen_3_4b, klein-9B qwen_3_8b."


HOST = Host(FAMILY, owns, sizes, tree, Text, shift, fills=LENGTH)
HOSTS = (HOST,)
