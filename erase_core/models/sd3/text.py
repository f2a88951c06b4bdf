"""CLIP-L, CLIP-G and T5 as Stable Diffusion 3 uses them.

A prompt's states are CLIP's and after them T5's. Both CLIPs see the same tokens, and stand side by
side, filled up with zeros to T5's width; a state is that of the last layer but one. All tokens are
read by the transformer, the padding's among them. They compute as
:mod:`~erase_core.models.flux1.text` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast, T5EncoderModel

from ...errors import EraseError
from ...tensors import read_weights
from ..base import Conditioning, linear_flop
from ..flux1.text import CLIP_LENGTH, encode_with, load_clip, tokenize
from ..tokens import token_mask

__all__ = ["CLIP_LENGTH"]  # for hosts
NEGATIVE = ""  # what pictures are drawn away from, unless told otherwise
UNUSED = 2  # a state of CLIP's is so many from the end
PAD_G = 0  # the token that CLIP-G's prompts are filled up with; CLIP-L's with their end
_PROJECTION = "text_projection.weight"


@dataclass(eq=False)
class ThreeEncoders:
    """The three encoders with their tokenizers, until :meth:`release`.

    ``clip_tokenizer`` is that of both CLIPs. ``projection`` (P, D) is that of CLIP-G's pooled
    vector; CLIP-L's is taken as it is. ``t5_length`` counts the T5 tokens of every prompt.
    """

    clip_l: CLIPTextModel
    clip_g: CLIPTextModel
    projection: Tensor
    clip_tokenizer: PreTrainedTokenizerFast
    t5: T5EncoderModel
    t5_tokenizer: PreTrainedTokenizerFast
    t5_length: int
    _negative: Conditioning | None = field(default=None, init=False)

    @property
    def parts(self) -> tuple[int, int]:
        """Rows of CLIP's and of T5's."""
        return CLIP_LENGTH, self.t5_length

    @property
    def length(self) -> int:
        """Tokens of every prompt."""
        return sum(self.parts)

    @property
    def flop(self) -> float:
        """Of all three on one prompt."""
        clips = sum(linear_flop(clip, CLIP_LENGTH) for clip in (self.clip_l, self.clip_g))
        return clips + linear_flop(self.t5, self.t5_length)

    def to(self, device: torch.device | str) -> ThreeEncoders:
        """Compute on ``device``; the matrices stay in the file and go over one at a time."""
        models: tuple[nn.Module, ...] = (self.clip_l, self.clip_g, self.t5)
        for model in models:
            model.to(device)
        self.projection = self.projection.to(device)
        return self

    def encode(self, prompts: Sequence[str], batch: int = 8) -> Conditioning:
        """Encode prompts without gradients: context (B, length, D) and pooled (B, P), float32 in
        main memory."""
        if self._negative is None:
            self._negative = encode_with(self._embed, [NEGATIVE], batch)
        return replace(encode_with(self._embed, prompts, batch), negative=self._negative)

    def release(self) -> None:
        """Give the encoders' memory back; the tokenizers stay, nothing is encoded any more."""
        del self.clip_l, self.clip_g, self.t5
        torch.cuda.empty_cache()  # else a card's memory would not count as free; no card, no effect

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """Which tokens spell ``word`` in ``prompt``, CLIP's and T5's: (length,) of 0 and 1.

        Raises
        ------
        EraseError
            When the word is not in the prompt, or lies past what an encoder reads.
        """
        return both_masks(self.clip_tokenizer, self.t5_tokenizer, prompt, word, self.t5_length)

    def _embed(self, prompts: Sequence[str]) -> Conditioning:
        device = self.t5.device
        ids = tokenize(self.clip_tokenizer, prompts, CLIP_LENGTH)
        first, last = (
            self._clip(clip, _ended(ids, self.clip_tokenizer.eos_token_id, pad).to(device))
            for clip, pad in ((self.clip_l, None), (self.clip_g, PAD_G))
        )
        t5_ids = tokenize(self.t5_tokenizer, prompts, self.t5_length).to(device)
        context = joined(first.context, last.context, self.t5(input_ids=t5_ids).last_hidden_state)
        assert first.pooled is not None and last.pooled is not None
        return Conditioning(
            context, torch.cat([first.pooled, last.pooled @ self.projection.T], dim=1)
        )

    @staticmethod
    def _clip(clip: Any, ids: Tensor) -> Conditioning:
        found = clip(input_ids=ids, output_hidden_states=True)
        return Conditioning(found.hidden_states[-UNUSED], found.pooler_output)


def joined(first: Tensor, second: Tensor, t5: Tensor) -> Tensor:
    """States of both CLIPs (B, n, D), side by side, and those of T5 after them."""
    clip = torch.cat([first, second], dim=-1)
    return torch.cat([F.pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], dim=1)


def both_masks(
    clip: PreTrainedTokenizerFast, t5: PreTrainedTokenizerFast, prompt: str, word: str, length: int
) -> Tensor:
    """Which of CLIP's and of ``length`` T5 tokens spell a word."""
    return torch.cat(
        [token_mask(clip, prompt, word, CLIP_LENGTH), token_mask(t5, prompt, word, length)]
    )


def load_clip_g(path: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[CLIPTextModel, Tensor]:
    """CLIP-G of any size, as :func:`~erase_core.models.flux1.text.load_clip` reads it, and the
    projection of its pooled vector (P, D) in float32; EraseError when the file has none."""
    clip, tensors = load_clip(path, tokenizer, "clip_g", "gelu"), read_weights(path)
    if _PROJECTION not in tensors:
        raise EraseError(f"{path} is not CLIP-G, which projects; choose clip_g.safetensors.")
    return clip, tensors[_PROJECTION].float()


def _ended(ids: Tensor, end: int, pad: int | None) -> Tensor:
    """Token ids (B, L) with ``pad``, None for the end token, after their first end token."""
    after = (ids == end).cumsum(1) - (ids == end).long() > 0
    return ids.masked_fill(after, end if pad is None else pad)
