"""Qwen3 and Qwen2.5-VL of the host's, for the families that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.tokens import token_mask
from .layers import fast


class QwenText:
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    A family says how its ``encoder`` is called, between which texts a prompt stands, what pictures
    are drawn away from, how many tokens a prompt may have, and what to tell of another CLIP and of
    one of another size. Of so many tokens ``before`` a prompt the host hands no states on.
    """

    encoder: str = "qwen3"
    before: int = 0
    template: tuple[str, str]
    negative: str
    length: int
    not_ours: str
    wrong_size: str

    def __init__(self, clip: Any, config: Any) -> None:
        name = next(iter(clip.tokenize("")), "")
        own = getattr(clip.tokenizer, "llama_template", "") == "{}".join(self.template)
        if not own or not name.startswith(self.encoder):
            raise EraseError(self.not_ours)
        self.clip, self.config, self.name = clip, config, name
        self.tokenizer = fast(getattr(clip.tokenizer, name).tokenizer)
        self._negative: Conditioning | None = None

    @property
    def flop(self) -> float:
        """Of the encoder on one prompt."""
        return linear_flop(getattr(self.clip.cond_stage_model, self.name), self.length)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, L, context_in_dim) float32 on the CPU."""
        if self._negative is None:
            self._negative = self._encode(self.negative)
        cond = Conditioning.cat([self._encode(prompt) for prompt in prompts])
        if cond.context.shape[-1] != self.config.context_in_dim:
            raise EraseError(self.wrong_size)
        return replace(cond, negative=self._negative)

    def release(self) -> None:
        """Nothing: the host lets its text encoders go by itself."""

    def _encode(self, prompt: str) -> Conditioning:
        tokens = self.clip.tokenize(prompt)
        if len(tokens[self.name][0]) > self.before + self.length:
            raise EraseError(
                f'The prompt "{prompt[:60]}..." is longer than {self.length} tokens; shorten it.'
            )
        with torch.inference_mode():
            return Conditioning(self.clip.encode_from_tokens(tokens).float().cpu().clone())

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the tokens of ``word``; EraseError when it is not there."""
        length = self.before + self.length
        return token_mask(self.tokenizer, prompt, word, length, self.template)[self.before :]
