"""Qwen3 as Z-Image uses it: its last layer but one, of a prompt in a chat.

The transformer reads the template's tokens, too, and no padding: states end with their prompt, and
are filled up to whole multiples of 32 in the transformer itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..base import Conditioning
from ..flux2.text import LENGTH, NEGATIVE, QwenText
from .config import MULTIPLE

__all__ = ["LENGTH", "NEGATIVE"]  # as klein has them, for hosts
UNUSED = -1  # layers of Qwen3 at its end
TEMPLATE = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")


class ChatText(QwenText):
    """Qwen3 with its tokenizer; ``length`` is the most that a prompt may have."""

    template = TEMPLATE

    def _embed(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, L, D), 0 where nobody reads it, and mask (B, L); L is a multiple of 32 that
        holds the longest."""
        texts = self.templated(prompts)
        found = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        ids = pad_sequence([torch.tensor(row) for row in found], batch_first=True)
        counts = torch.tensor([len(row) for row in found])
        own = (torch.arange(ids.shape[1]) < counts[:, None]).to(self.qwen.device)
        states = self.qwen(
            input_ids=ids.to(self.qwen.device), attention_mask=own.long(), use_cache=False
        ).last_hidden_state
        return filled_up(states * own[..., None], own)


def filled_up(states: Tensor, own: Tensor) -> Conditioning:
    """States (B, n, D) and which of them are a prompt's, with a whole multiple of 32 in a row."""
    pad = -states.shape[1] % MULTIPLE
    return Conditioning(F.pad(states, (0, 0, 0, pad)), mask=F.pad(own, (0, pad)))
