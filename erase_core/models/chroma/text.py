"""T5 as Chroma uses it: alone, and nobody reads its padding but the first token of it.

T5 itself does not look at padding either, so that the states are those of the prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from ..base import Conditioning, linear_flop
from ..flux1.text import encode_with, tokenize
from ..tokens import token_mask

NEGATIVE = ""  # what pictures are drawn away from, unless told otherwise


@dataclass(eq=False)
class T5Text:
    """T5 with its tokenizer, until :meth:`release`; ``length`` is that of every prompt."""

    t5: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    length: int
    _negative: Conditioning | None = field(default=None, init=False)

    @property
    def flop(self) -> float:
        """Of one prompt."""
        return linear_flop(self.t5, self.length)

    @property
    def table(self) -> Tensor:
        """The embeddings of all tokens, (V, D)."""
        return self.t5.get_input_embeddings().weight.detach()

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, length) of prompts."""
        return tokenize(self.tokenizer, prompts, self.length)

    def states(self, embeddings: Tensor) -> Conditioning:
        """Prompts as embeddings (B, length, D), with gradients; padding is what equals the pad
        token's embedding up to the end."""
        padding = (embeddings == self.table[self.tokenizer.pad_token_id]).all(-1)
        return self._read(embeddings, padding.flip(1).cumprod(1).flip(1) == 0)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts in one batch where the encoder computes, with gradients where it wants them."""
        ids = self.tokens(prompts).to(self.t5.device)
        return self._read(self.t5.get_input_embeddings()(ids), ids != self.tokenizer.pad_token_id)

    def encode(self, prompts: Sequence[str], batch: int = 64) -> Conditioning:
        """Encode prompts without gradients: context (B, length, D) float32, 0 where nobody reads
        it, and mask (B, length), in main memory."""
        return encode_with(self.embed, prompts, batch)

    def release(self) -> None:
        """Give the encoder's memory back; the tokenizer stays, nothing is encoded any more."""
        del self.t5
        torch.cuda.empty_cache()  # else a card's memory would not count as free; no card, no effect

    def to(self, device: torch.device | str) -> T5Text:
        """Compute on ``device``; the matrices stay in the file and go over one at a time."""
        encoder: nn.Module = self.t5
        encoder.to(device)
        return self

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """Which tokens spell ``word`` in ``prompt``: (length,) of 0 and 1.

        Raises
        ------
        EraseError
            When the word is not in the prompt, or lies past the truncation length.
        """
        return token_mask(self.tokenizer, prompt, word, self.length)

    def _read(self, embeddings: Tensor, own: Tensor) -> Conditioning:
        """Prompts as embeddings, of which the tokens ``own`` (B, length) are no padding."""
        if self._negative is None:
            with torch.no_grad():
                ids = self.tokens([NEGATIVE]).to(self.t5.device)
                rows = self.t5.get_input_embeddings()(ids)
                self._negative = self._one_more(rows, ids != self.tokenizer.pad_token_id)
        return replace(self._one_more(embeddings, own), negative=self._negative)

    def _one_more(self, embeddings: Tensor, own: Tensor) -> Conditioning:
        """Their states, those of one token of padding among them."""
        found = self.t5(inputs_embeds=embeddings, attention_mask=own.to(embeddings))
        count = torch.arange(own.shape[1], device=own.device)
        mask = count <= own.sum(1, keepdim=True)
        return Conditioning(found.last_hidden_state * mask[..., None], mask=mask)
