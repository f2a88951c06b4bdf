"""Where a word stands in a prompt, as character spans."""

from __future__ import annotations

import re
from functools import lru_cache

from ..errors import EraseError
from .inflect import word_forms

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
