"""Where a word stands in a prompt: character spans, and the tokens that cover them."""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..errors import EraseError
from .inflect import word_forms

METASPACE = "▁"
_GAP = r"[\s-]+"


def word_spans(prompt: str, word: str) -> list[tuple[int, int]]:
    """Character spans (start, end) of every whole-word occurrence of `word` in `prompt`.

    Case is ignored and inflections count whole: plural, possessive, -s / -ing / -ed, on the first
    and the last word of a phrase ("holds hands", "hot dogs"). Never inside another word: `cat` is
    not in `catalogue`. Empty when the word is absent; EraseError when `word` itself is empty.
    """
    return [match.span() for match in _pattern(word).finditer(prompt)]


@lru_cache(maxsize=4096)
def _pattern(word: str) -> re.Pattern[str]:
    parts = [part for part in re.split(_GAP, word.strip()) if part]
    if not parts:
        raise EraseError("The word to look for is empty; give the concept a name.")
    last = len(parts) - 1
    choices = [
        _any_form(part) if i in (0, last) else re.escape(part) for i, part in enumerate(parts)
    ]
    return re.compile(rf"(?<!\w){_GAP.join(choices)}(?:['’]s)?(?!\w)", re.IGNORECASE)


def _any_form(word: str) -> str:
    forms = {form for words in word_forms(word).values() for form in words}
    return "(?:" + "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) + ")"


def token_mask(tokenizer: PreTrainedTokenizerFast, prompt: str, word: str, length: int) -> Tensor:
    """Mark the tokens of `word` among the `length` tokens that an encoder sees.

    Returns float32 (length,): 1 where a token overlaps a character of an occurrence, else 0 (a bare
    metaspace belongs to no word). Raises EraseError when the word is not in the prompt, or when an
    occurrence is cut, even partly, by truncation to `length` tokens.
    """
    spans = word_spans(prompt, word)
    if not spans:
        raise EraseError(f'"{word}" is not in the prompt "{prompt}"; write it there as it stands.')
    whole = _covering(tokenizer, prompt, spans, None)
    seen = _covering(tokenizer, prompt, spans, length)
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
