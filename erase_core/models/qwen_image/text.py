"""Qwen2.5-VL as Qwen-Image uses it: its last states of a prompt in a chat.

What stands before the prompt tells the model what to describe; the transformer does not read the
states of these tokens. It reads all others and no padding. Of the encoder only what reads text is
loaded, which is Qwen2's. It computes as :mod:`~erase_core.models.flux1.text` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Config, Qwen2Model

from ...errors import EraseError
from ...tensors import read_weights
from ..base import Conditioning, linear_flop
from ..flux1.text import count_layers
from ..flux2.text import EPS, LENGTH, NEGATIVE, THETA, QwenText, without_positions
from ..tokens import token_mask

__all__ = ["LENGTH", "NEGATIVE"]  # as klein has them, for hosts; the tokens before are not counted
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
HEAD = 128  # of the encoder, in every size
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
_TABLE = "embed_tokens.weight"
_FIRST = "layers.0."


class ChatText(QwenText):
    """Qwen2.5-VL with its tokenizer; ``length`` is the most that a prompt may have."""

    template = TEMPLATE

    @property
    def before(self) -> int:
        """Tokens before a prompt's own."""
        return len(self.tokenizer(self.template[0])["input_ids"])

    @property
    def flop(self) -> float:
        """Of one prompt, those tokens among it."""
        return linear_flop(self.qwen, self.before + self.length)

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """Which tokens spell ``word`` in ``prompt``: (length,) of 0 and 1; EraseError as
        :class:`~erase_core.models.flux2.text.QwenText` has it."""
        before = self.before
        length = before + self.length
        return token_mask(self.tokenizer, prompt, word, length, self.template)[before:]

    def _embed(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, L, D), 0 where nobody reads it, and mask (B, L), L that of the longest."""
        before, device = self.before, self.qwen.device
        found = self.tokenizer(
            self.templated(prompts), truncation=True, max_length=before + self.length
        )["input_ids"]
        ids = pad_sequence([torch.tensor(row) for row in found], batch_first=True)
        counts = torch.tensor([len(row) for row in found])
        own = (torch.arange(ids.shape[1]) < counts[:, None]).to(device)
        states = self.qwen(
            input_ids=ids.to(device), attention_mask=own.long(), use_cache=False
        ).last_hidden_state
        return Conditioning((states * own[..., None])[:, before:], mask=own[:, before:])


def load_qwen(path: Path) -> Any:
    """What reads text in a Qwen2.5-VL of any size.

    It comes from a safetensors file with ``model.layers`` names, or from the ``text_encoder``
    folder of a pipeline, sharded or not. Weights have 32, 16 or 8 bits, the last perhaps with a
    scale for each matrix.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised in another way, or something else.
    """
    tensors = _bare(read_weights(path))
    config = Qwen2Config(**_sizes(tensors, path))
    with torch.device("meta"):
        model: Any = Qwen2Model(config)
    return without_positions(model, config, tensors, path)


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text model's tensors under its own names."""
    prefix = next((p for p in _PREFIXES if f"{p}{_TABLE}" in tensors), "")
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _sizes(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Qwen2Config's arguments, as the shapes of tensors tell."""
    try:
        rows, width = tensors[_TABLE].shape
        queries, keys = (len(tensors[f"{_FIRST}self_attn.{name}_proj.bias"]) for name in "qk")
        inner = len(tensors[f"{_FIRST}mlp.gate_proj.weight"])
        fits = queries == width and not width % HEAD and not keys % HEAD
    except (KeyError, ValueError, TypeError):
        fits = False
    if not fits:
        raise EraseError(
            f"{path} is not a Qwen2.5-VL text encoder; choose qwen_2.5_vl_7b.safetensors or "
            "qwen_2.5_vl_7b_fp8_scaled."
        )
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": count_layers(tensors, "layers."),
        "num_attention_heads": queries // HEAD,
        "num_key_value_heads": keys // HEAD,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "max_position_embeddings": 128_000,
    }
