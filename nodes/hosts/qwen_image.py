"""Qwen-Image in the host: its transformer as a tree that can be trained through, Qwen2.5-VL-7B."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import torch

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.qwen_image import FAMILY
from ...erase_core.models.qwen_image.config import QwenImageConfig
from ...erase_core.models.qwen_image.load import EDITS_SEVERAL, LAYERED, named
from ...erase_core.models.qwen_image.names import skeleton
from ...erase_core.models.qwen_image.text import LENGTH, NEGATIVE, TEMPLATE
from ...erase_core.models.qwen_image.tree import QwenImage
from .base import Host, base_name, flow_shift, kind_of
from .layers import check_blocks, filled
from .qwen import QwenText

ADVICE = "connect a Qwen-Image text-to-image model"


def owns(model: Any) -> bool:
    """Whether a MODEL is a Qwen-Image."""
    return kind_of(model) is comfy.model_base.QwenImage


def sizes(model: Any) -> QwenImageConfig:
    """The sizes of a MODEL; EraseError unless its weights are seen, and it turns a prompt into a
    picture."""
    check_blocks(model, ADVICE, "transformer_blocks.0.attn.add_q_proj")
    what = named([base_name(model)]) or _built_as(model.model.diffusion_model)
    if what:
        raise EraseError(f"This MODEL is {what}; {ADVICE}.")
    config = QwenImageConfig.from_tree(model.model.diffusion_model)
    if config.in_channels != QwenImageConfig.in_channels:
        raise EraseError(f"This MODEL takes more than a prompt; {ADVICE}.")
    return config


def _built_as(inner: Any) -> str:
    """What a transformer is that the host has built in another way; "" for the plain one."""
    if getattr(inner.time_text_embed, "use_additional_t_cond", False):
        return LAYERED
    timed = getattr(inner, "default_ref_method", "") == "index_timestep_zero"
    return EDITS_SEVERAL if timed else ""


def tree(model: Any, config: QwenImageConfig) -> QwenImage:
    """A Qwen-Image with the core's names that computes with the MODEL's own layers and can be
    trained on; EraseError when it computes in float16."""
    return filled(skeleton(config), model)


class Text(QwenText):
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    EraseError when the CLIP is not Qwen-Image's Qwen2.5-VL.
    """

    encoder, template, negative, length = "qwen25_7b", TEMPLATE, NEGATIVE, LENGTH
    not_ours = (
        "This CLIP is not Qwen-Image's Qwen2.5-VL; load qwen_2.5_vl_7b with CLIPLoader (Load "
        "CLIP), type qwen_image."
    )
    wrong_size = "This CLIP belongs to another MODEL; Qwen-Image needs qwen_2.5_vl_7b."

    def __init__(self, clip: Any, config: QwenImageConfig) -> None:
        super().__init__(clip, config)
        self.before = len(self.tokenizer(TEMPLATE[0])["input_ids"])

    @property
    def flop(self) -> float:
        """Of what reads text on one prompt."""
        whole = getattr(self.clip.cond_stage_model, self.name).transformer
        return linear_flop(whole.model, self.before + self.length)

    def _encode(self, prompt: str) -> Conditioning:
        """As many states as the prompt has tokens, and the template's behind it; all are read."""
        states = super()._encode(prompt).context
        return Conditioning(states, mask=torch.ones(states.shape[:2], dtype=torch.bool))


HOST = Host(FAMILY, owns, sizes, tree, Text, flow_shift)
HOSTS = (HOST,)
