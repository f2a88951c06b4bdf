"""Where a word stands in a prompt, as character spans."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from re import compile as regex
from typing import NamedTuple

from ..errors import EraseError
from .inflect import word_forms

_GAP = r"[\s-]+"
# Scripts without blanks between words, or with endings behind them: Thai, Khmer, Hangul, Kana, Han
_UNSPACED = regex("[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff"
                       "\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")  # fmt: skip


def word_spans(prompt: str, word: str) -> list[tuple[int, int]]:
    """Character spans (start, end) of every whole-word occurrence of `word` in `prompt`.

    Case is ignored and inflections count whole: plural, possessive, -s / -ing / -ed, on the first
    and the last word of a phrase ("holds hands", "hot dogs"). Never inside another word: `cat` is
    not in `catalogue`; scripts without blanks know no such border. Letters that look alike are one:
    full width, composed or not; characters that nobody sees are passed over. Empty when the word is
    absent; EraseError when `word` itself is empty.
    """
    plain, pattern = _fold(prompt), _pattern(_fold(word).text)
    return [
        (plain.starts[m.start()], plain.ends[m.end() - 1]) for m in pattern.finditer(plain.text)
    ]


class Words:
    """Many words, the first of which is found in a text without looking for each."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._by_run: dict[str, list[int]] = {}  # places of words, by the letters they begin with
        for place, word in enumerate(self.words):
            for run in _beginnings(_fold(word).text):
                self._by_run.setdefault(run, []).append(place)

    def first_in(self, text: str) -> str | None:
        """The first of the words that stands in ``text`` as :func:`word_spans` has it, or None."""
        runs = {"", *(run.lower() for run in re.findall(r"\w+", _fold(text).text))}
        places = sorted({place for run in runs for place in self._by_run.get(run, ())})
        return next((self.words[p] for p in places if word_spans(text, self.words[p])), None)


def _beginnings(word: str) -> set[str]:
    """The runs of letters with which forms of a word begin in a text; "" where it may stand
    anywhere."""
    if _UNSPACED.match(word.strip()):
        return {""}
    first = re.split(_GAP, word.strip(), maxsplit=1)[0]
    forms = {form for words in word_forms(first).values() for form in words} if first else {""}
    return {run[0].lower() if (run := re.match(r"\w*", form)) else "" for form in forms}


class _Folded(NamedTuple):
    """A text as it is compared, and where each of its characters began and ended."""

    text: str
    starts: range | list[int]
    ends: range | list[int]


@lru_cache(maxsize=4096)
def _fold(text: str) -> _Folded:
    if text.isascii():
        return _Folded(text, range(len(text)), range(1, len(text) + 1))
    folded, starts, ends = "", list[int](), list[int]()
    for match in re.finditer(r"(?s).[\u0300-\u036f]*", text):  # a letter with its accents
        if unicodedata.category(match[0][0]) == "Cf":
            continue
        letters = unicodedata.normalize("NFKC", match[0]).casefold().replace("i\u0307", "i")
        folded += letters
        starts += [match.start()] * len(letters)
        ends += [match.end()] * len(letters)
    return _Folded(folded, starts, ends)


@lru_cache(maxsize=4096)
def _pattern(word: str) -> re.Pattern[str]:
    parts = [part for part in re.split(_GAP, word.strip()) if part]
    if not parts:
        raise EraseError("The word to look for is empty; give the concept a name.")
    last = len(parts) - 1
    choices = [
        _any_form(part) if i in (0, last) else re.escape(part) for i, part in enumerate(parts)
    ]
    before = "" if _UNSPACED.match(parts[0]) else r"(?<!\w)"
    after = "" if _UNSPACED.match(parts[-1][-1]) else r"(?!\w)"
    return regex(rf"{before}{_GAP.join(choices)}(?:['’]s)?{after}", re.IGNORECASE)


def _any_form(word: str) -> str:
    forms = {form for words in word_forms(word).values() for form in words}
    return "(?:" + "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) + ")"
