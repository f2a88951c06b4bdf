"""A tokenizer from its folder, and which tokens of a prompt spell a word, by its characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..concepts.spans import word_spans
from ..errors import EraseError

METASPACE = "\u2581"


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a folder of transformers'; EraseError when it is damaged or of a kind that
    does not tell where a token stands in its text. No code of the folder's is run."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        tokenizer(["a cat"], padding="max_length", max_length=8, return_offsets_mapping=True)
    except Exception as error:  # the parsers of damaged files raise nearly everything
        raise EraseError(
            f"The tokenizer in {folder} cannot be read; download the folder again."
        ) from error
    return tokenizer


def token_mask(
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    word: str,
    length: int,
    template: tuple[str, str] = ("", ""),
) -> Tensor:
    """Mark the tokens of `word` among the `length` tokens that an encoder sees.

    The encoder sees the prompt between the two texts of a `template`, in which no word is looked
    for.

    Returns float32 (length,): 1 where a token overlaps a character of an occurrence, else 0 (a bare
    metaspace belongs to no word). Raises EraseError when the word is not in the prompt, or when an
    occurrence is cut, even partly, by truncation to `length` tokens.
    """
    spans = word_spans(prompt, word)
    if not spans:
        raise EraseError(f'"{word}" is not in the prompt "{prompt}"; write it there as it stands.')
    before, after = template
    text, shift = before + prompt + after, len(before)
    spans = [(start + shift, end + shift) for start, end in spans]
    whole = _covering(tokenizer, text, spans, None)
    seen = _covering(tokenizer, text, spans, length)
    if len(seen) < len(whole):
        raise EraseError(
            f'"{word}" lies past the {length} tokens that the text encoder reads of '
            f'"{prompt[:60]}..."; shorten the prompt or move the word forward.'
        )
    mask = torch.zeros(length)
    mask[seen] = 1.0
    return mask


def _covering(
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    spans: list[tuple[int, int]],
    length: int | None,
) -> list[int]:
    """Indices of the tokens that overlap any span, truncated to `length` tokens if given."""
    encoded = tokenizer(
        prompt,
        truncation=length is not None,
        max_length=length,
        return_offsets_mapping=True,
        padding=False,
        verbose=False,
    )
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    return [
        index
        for index, (token, (start, end)) in enumerate(
            zip(tokens, encoded["offset_mapping"], strict=True)
        )
        if token != METASPACE and any(max(start, a) < min(end, b) for a, b in spans)
    ]
