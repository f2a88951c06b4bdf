"""Z-Image in the host: its transformer as a tree that can be trained through, Qwen3-4B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.supported_models
import torch

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning
from ...erase_core.models.zimage import FAMILY
from ...erase_core.models.zimage.config import ZImageConfig
from ...erase_core.models.zimage.names import skeleton
from ...erase_core.models.zimage.text import LENGTH, NEGATIVE, TEMPLATE, filled_up
from ...erase_core.models.zimage.tree import ZImage
from .base import Host, flow_shift, kind_of, refuse_unknown
from .layers import check_blocks, filled
from .qwen import QwenText

ADVICE = "connect a Z-Image text-to-image model"
PADS = ("x_pad_token", "cap_pad_token")


def owns(model: Any) -> bool:
    """Whether a MODEL is a Z-Image, for the host a Lumina 2 with tokens to fill up with."""
    inner = getattr(model.model, "diffusion_model", None)
    return kind_of(model) is comfy.model_base.Lumina2 and hasattr(inner, PADS[1])


def refuse_in_old_hosts(path: Path) -> None:
    """EraseError for a file of Z-Image in a host that has none."""
    refuse_unknown(path, FAMILY, hasattr(comfy.supported_models, "ZImage"))


def sizes(model: Any) -> ZImageConfig:
    """The sizes of a MODEL; EraseError when its weights are not seen, or it edits pictures."""
    check_blocks(model, ADVICE, "layers.0.attention.qkv")
    inner = model.model.diffusion_model
    if getattr(inner, "siglip_embedder", None) is not None:
        raise EraseError(f"This MODEL is a Z-Image that edits pictures; {ADVICE}.")
    return ZImageConfig.from_tree(inner)


def tree(model: Any, config: ZImageConfig) -> ZImage:
    """A Z-Image with the core's names that computes with the MODEL's own layers and can be trained
    on; EraseError when it computes in float16."""
    frame = filled(skeleton(config), model)
    for name in PADS:
        delattr(frame, name)
        setattr(frame, name, getattr(model.model.diffusion_model, name).detach().clone())
    return frame


class Text(QwenText):
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    EraseError when the CLIP is not Z-Image's Qwen3.
    """

    template, negative, length = TEMPLATE, NEGATIVE, LENGTH
    not_ours = (
        "This CLIP is not Z-Image's Qwen3; load qwen_3_4b with CLIPLoader (Load CLIP), type "
        "lumina2."
    )
    wrong_size = "This CLIP belongs to another MODEL; Z-Image needs qwen_3_4b."

    def _encode(self, prompt: str) -> Conditioning:
        """As many states as the prompt has tokens, filled up."""
        states = super()._encode(prompt).context
        return filled_up(states, torch.ones(states.shape[:2], dtype=torch.bool))


HOST = Host(FAMILY, owns, sizes, tree, Text, flow_shift, clip_loader="Load CLIP (type lumina2)")
HOSTS = (HOST,)
