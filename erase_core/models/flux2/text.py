"""Qwen3 as FLUX.2 klein uses it: three of its layers, side by side, of a prompt in a chat.

All tokens are read by the transformer, the template's and the padding's among them; Qwen3 itself
looks neither at padding nor ahead. It computes as :mod:`~erase_core.models.flux1.text` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ...errors import EraseError
from ...tensors import read_weights
from ..base import Conditioning, linear_flop
from ..flux1.text import assign, count_layers, encode_with, tokenize
from ..tokens import token_mask

LENGTH = 512  # tokens of every prompt
LAYERS = (9, 18, 27)  # after how many layers the states are taken
TEMPLATE = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
NEGATIVE = ""  # what pictures are drawn away from, unless told otherwise
THETA, EPS = 1e6, 1e-6  # of Qwen3's positions and norms, in every size
_TABLE = "embed_tokens.weight"
_FIRST = "layers.0."


@dataclass(eq=False)
class QwenText:
    """Qwen3 with its tokenizer, until :meth:`release`; ``length`` is that of every prompt."""

    qwen: Any
    tokenizer: PreTrainedTokenizerFast
    length: int = LENGTH
    template: ClassVar[tuple[str, str]] = TEMPLATE
    _negative: Conditioning | None = field(default=None, init=False)

    @property
    def flop(self) -> float:
        """Of one prompt."""
        return linear_flop(self.qwen, self.length)

    def encode(self, prompts: Sequence[str], batch: int = 8) -> Conditioning:
        """Encode prompts without gradients: context (B, length, 3 D) float32 in main memory."""
        if self._negative is None:
            self._negative = encode_with(self._embed, [NEGATIVE], batch, "Qwen3")
        found = encode_with(self._embed, prompts, batch, "Qwen3")
        return replace(found, negative=self._negative)

    def release(self) -> None:
        """Give the encoder's memory back; the tokenizer stays, nothing is encoded any more."""
        del self.qwen
        torch.cuda.empty_cache()  # else a card's memory would not count as free; no card, no effect

    def to(self, device: torch.device | str) -> QwenText:
        """Compute on ``device``; the matrices stay in the file and go over one at a time."""
        encoder: nn.Module = self.qwen
        encoder.to(device)
        return self

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """Which tokens spell ``word`` in ``prompt``: (length,) of 0 and 1.

        Raises
        ------
        EraseError
            When the word is not in the prompt, or lies past the truncation length.
        """
        return token_mask(self.tokenizer, prompt, word, self.length, self.template)

    def templated(self, prompts: Sequence[str]) -> list[str]:
        """Prompts as Qwen3 gets them."""
        return [prompt.join(self.template) for prompt in prompts]

    def _embed(self, prompts: Sequence[str]) -> Conditioning:
        ids = tokenize(self.tokenizer, self.templated(prompts), self.length)
        ids = ids.to(self.qwen.device)
        own = ids != self.tokenizer.pad_token_id
        found = self.qwen(
            input_ids=ids, attention_mask=own.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
        return Conditioning(torch.cat([found[layer] for layer in LAYERS], dim=-1))


def load_qwen(path: Path, layers: int = LAYERS[-1]) -> Any:
    """Qwen3 of any size, its first ``layers``, or all but so many if that is negative.

    It comes from a safetensors file with ``model.layers`` names, or from the ``text_encoder``
    folder of a pipeline, sharded or not. Weights have 32, 16 or 8 bits, the last perhaps with a
    scale for each matrix.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised in another way, or something else, or
        transformers is too old for it.
    """
    try:
        from transformers import Qwen3Config, Qwen3Model
    except ImportError as error:
        raise EraseError(
            "The text encoder Qwen3 needs a newer transformers; pip install -U transformers."
        ) from error
    tensors = {name.removeprefix("model."): t for name, t in read_weights(path).items()}
    config = Qwen3Config(**_sizes(tensors, path, layers))
    with torch.device("meta"):
        model: Any = Qwen3Model(config)
    model.norm = nn.Identity()  # of the last layer's states, which are taken without
    return without_positions(model, config, tensors, path)


def without_positions(model: Any, config: Any, tensors: dict[str, Tensor], path: Path) -> Any:
    """Fill a model that has no storage from a file that has no numbers for its positions."""
    rope = type(model.rotary_emb)(config)
    model.rotary_emb = nn.Identity()
    model = assign(model, tensors, path)
    model.rotary_emb = rope
    return model


def _sizes(tensors: dict[str, Tensor], path: Path, layers: int) -> dict[str, Any]:
    """Qwen3Config's arguments, as the shapes of tensors tell."""
    otherwise = f"{path} is not a Qwen3 text encoder; choose qwen_3_4b.safetensors or qwen_3_8b."
    try:
        rows, width = tensors[_TABLE].shape
        (head,) = tensors[f"{_FIRST}self_attn.q_norm.weight"].shape
        queries, keys, inner = (
            len(tensors[f"{_FIRST}{name}_proj.weight"])
            for name in ("self_attn.q", "self_attn.k", "mlp.gate")
        )
    except (KeyError, ValueError, TypeError) as error:
        raise EraseError(otherwise) from error
    count = count_layers(tensors, "layers.")
    used = count + layers if layers < 0 else layers
    if not 0 < used <= count or not head or queries % head or keys % head:
        raise EraseError(otherwise)
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": used,
        "num_attention_heads": queries // head,
        "num_key_value_heads": keys // head,
        "head_dim": head,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
