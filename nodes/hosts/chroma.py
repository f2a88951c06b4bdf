"""Chroma in the host: its transformer as a tree that can be trained through, T5 alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_base
import torch
from torch import Tensor

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.chroma import FAMILY
from ...erase_core.models.chroma.config import ChromaConfig
from ...erase_core.models.chroma.names import skeleton
from ...erase_core.models.chroma.text import NEGATIVE
from ...erase_core.models.chroma.tree import Chroma
from ...erase_core.models.tokens import token_mask
from .base import Host, flow_shift, kind_of
from .layers import check_blocks, filled, t5_tokens

ADVICE = "connect a Chroma1-HD or Chroma1-Base text-to-image model"
LENGTH = 256  # T5 tokens of a prompt at most; the host knows no such limit


def owns(model: Any) -> bool:
    """Whether a MODEL is a Chroma. The host's own subclass of it, Radiance, draws pixels."""
    return kind_of(model) is comfy.model_base.Chroma


def sizes(model: Any) -> ChromaConfig:
    """The sizes of a Chroma MODEL; EraseError when its weights are not to be seen."""
    check_blocks(model, ADVICE)
    return ChromaConfig.from_tree(model.model.diffusion_model)


def tree(model: Any, config: ChromaConfig) -> Chroma:
    """A Chroma with the core's names that computes with the MODEL's own layers and can be trained
    on; EraseError when it computes in float16."""
    return filled(skeleton(config), model)


class Text:
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    Prompts are taken as they stand: brackets are no weights. The host gives no padding, unless T5
    Tokenizer Options ask for some; here all have one length, and nobody reads what was added.
    EraseError when the CLIP is not T5 alone.
    """

    def __init__(self, clip: Any, config: ChromaConfig) -> None:
        names = ("clip_t5xxl", "t5xxl")  # the host's own, and perhaps another's
        found = (getattr(clip.tokenizer, name, None) for name in names)
        t5 = next((each for each in found if each is not None), None)
        if t5 is None or set(clip.tokenize("")) != {"t5xxl"}:
            raise EraseError(
                "This CLIP is not Chroma's T5; load t5xxl with CLIPLoader (Load CLIP), type chroma."
            )
        self.clip, self.config = clip, config
        self.tokenizer = t5.tokenizer
        self.length = max(LENGTH, len(clip.tokenize("")["t5xxl"][0]))
        self._negative: Conditioning | None = None

    @property
    def flop(self) -> float:
        """Of T5 on one prompt."""
        return linear_flop(self.clip.cond_stage_model.t5xxl, self.length)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, length, context_in_dim) float32 and mask (B, length) on the CPU."""
        if self._negative is None:
            self._negative = self._encode(NEGATIVE)
        cond = Conditioning.cat([self._encode(prompt) for prompt in prompts])
        if cond.context.shape[-1] != self.config.context_in_dim:
            raise EraseError("This CLIP belongs to another MODEL; Chroma needs T5-XXL.")
        return replace(cond, negative=self._negative)

    def release(self) -> None:
        """Nothing: the host lets its text encoders go by itself."""

    def _encode(self, prompt: str) -> Conditioning:
        tokens = t5_tokens(self.clip, prompt, self.length)
        with torch.inference_mode():
            found = self.clip.encode_from_tokens(tokens)
        context = torch.zeros(1, self.length, found.shape[-1])
        context[:, : found.shape[1]] = found.float().cpu()
        mask = torch.arange(self.length)[None] < found.shape[1]
        return Conditioning(context, mask=mask)

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the T5 tokens of ``word``; EraseError when it is not there."""
        return token_mask(self.tokenizer, prompt, word, self.length)


HOST = Host(FAMILY, owns, sizes, tree, Text, flow_shift)
HOSTS = (HOST,)
