"""Stable Diffusion 3.5 in the host: its transformer as a tree that can be trained through, CLIP-L,
CLIP-G and T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_base
import torch
from torch import Tensor

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.sd3 import FAMILY
from ...erase_core.models.sd3.config import SD3Config
from ...erase_core.models.sd3.names import skeleton
from ...erase_core.models.sd3.text import CLIP_LENGTH, NEGATIVE, both_masks
from ...erase_core.models.sd3.tree import SD3
from .base import Host, flow_shift, kind_of
from .layers import check_blocks, fast, filled, t5_tokens

ADVICE = "connect a Stable Diffusion 3.5 text-to-image model"
ENCODERS = ("clip_l", "clip_g", "t5xxl")


def owns(model: Any) -> bool:
    """Whether a MODEL is a Stable Diffusion 3."""
    return kind_of(model) is comfy.model_base.SD3


def sizes(model: Any) -> SD3Config:
    """The sizes of a MODEL; EraseError when its weights are not to be seen."""
    check_blocks(model, ADVICE, "joint_blocks.0.context_block.attn.qkv")
    return SD3Config.from_tree(model.model.diffusion_model)


def tree(model: Any, config: SD3Config) -> SD3:
    """A Stable Diffusion 3 with the core's names that computes with the MODEL's own layers and can
    be trained on; EraseError when it computes in float16."""
    frame = filled(skeleton(config), model)
    del frame.pos_embed
    frame.pos_embed = model.model.diffusion_model.pos_embed
    return frame


class Text:
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    Prompts are taken as they stand: brackets are no weights. EraseError when the CLIP is not Stable
    Diffusion 3.5's, with all three encoders.
    """

    def __init__(self, clip: Any, config: SD3Config) -> None:
        inner = clip.cond_stage_model
        whole = all(getattr(inner, name, None) is not None for name in ENCODERS)
        if set(clip.tokenize("")) != {"l", "g", "t5xxl"} or not whole:
            raise EraseError(
                "This CLIP is not Stable Diffusion 3.5's CLIP-L, CLIP-G and T5; take that of a "
                "checkpoint which includes all three, or load them with TripleCLIPLoader."
            )
        self.clip, self.config = clip, config
        self.clip_tokenizer = fast(clip.tokenizer.clip_l.tokenizer)
        self.t5_tokenizer = fast(clip.tokenizer.t5xxl.tokenizer)
        self.parts = CLIP_LENGTH, len(clip.tokenize("")["t5xxl"][0])
        self._negative: Conditioning | None = None

    @property
    def length(self) -> int:
        """Tokens of every prompt."""
        return sum(self.parts)

    @property
    def flop(self) -> float:
        """Of all three encoders on one prompt."""
        inner, lengths = self.clip.cond_stage_model, (CLIP_LENGTH, *self.parts)
        counts = zip(ENCODERS, lengths, strict=True)
        return sum(linear_flop(getattr(inner, name), length) for name, length in counts)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, length, context_in_dim) and pooled (B, vec_in_dim), float32 on the CPU."""
        if self._negative is None:
            self._negative = self._encode(NEGATIVE)
        cond = Conditioning.cat([self._encode(prompt) for prompt in prompts])
        assert cond.pooled is not None
        widths = cond.context.shape[-1], cond.pooled.shape[-1]
        if widths != (self.config.context_in_dim, self.config.vec_in_dim):
            raise EraseError(
                "This CLIP belongs to another MODEL; Stable Diffusion 3.5 needs CLIP-L, CLIP-G and "
                "T5-XXL."
            )
        return replace(cond, negative=self._negative)

    def release(self) -> None:
        """Nothing: the host lets its text encoders go by itself."""

    def _encode(self, prompt: str) -> Conditioning:
        tokens = t5_tokens(self.clip, prompt, self.parts[1])
        if len(tokens["l"]) > 1:
            raise EraseError(
                f'The prompt "{prompt[:60]}..." is longer than {CLIP_LENGTH} CLIP tokens; shorten '
                "it."
            )
        with torch.inference_mode():
            context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        return Conditioning(context.float().cpu().clone(), pooled.float().cpu().clone())

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the tokens of ``word``, CLIP's and T5's; EraseError when it is not
        there."""
        length = self.parts[1]
        return both_masks(self.clip_tokenizer, self.t5_tokenizer, prompt, word, length)


HOST = Host(FAMILY, owns, sizes, tree, Text, flow_shift, clip_loader="TripleCLIPLoader")
HOSTS = (HOST,)
