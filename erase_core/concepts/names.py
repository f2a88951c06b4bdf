"""Names as people type them: "a Tiger", "tigers", with an emoji, "panthera tigris"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from re import compile as regex

from .inflect import lemma

_ARTICLE = regex(r"^(?:an?|the) (?=\S)", re.IGNORECASE)
_UNSEEN = {"Cf", "Cc", "Cs", "Co", "So", "Sk"}  # joiners, controls, emoji and the like
_VARIANTS = regex("[\ufe00-\ufe0f]")  # which make a sign an emoji


def plain(name: str) -> str:
    """A name without emoji and characters that nobody sees, with one blank between two words and
    ordinary letters for full-width ones (NFKC). Empty where nothing is left."""
    blanks = "".join(" " if unicodedata.category(c) == "Cc" else c for c in name)
    seen = (c for c in blanks if unicodedata.category(c) not in _UNSEEN)
    return " ".join(unicodedata.normalize("NFKC", _VARIANTS.sub("", "".join(seen))).split())


def bare(name: str) -> str:
    """A plain name without its article: "the tiger" is "tiger"."""
    return _ARTICLE.sub("", plain(name))


def match(name: str, known: Mapping[str, str]) -> str | None:
    """What a name stands for in ``known``, spellings of names with these; None if it has none.

    The exact spelling is preferred, then any case and inflection ("Tigers").
    """
    wanted = bare(name)
    if wanted in known:
        return known[wanted]
    return {folded(spelling): found for spelling, found in known.items()}.get(folded(wanted))


def folded(name: str) -> str:
    """A bare name in lower case, every word in its base form."""
    return " ".join(lemma(word) for word in name.casefold().split())


def suggestion(name: str, known: Iterable[str]) -> str:
    """' Did you mean "tiger"?', for the end of a sentence; empty where nothing is near."""
    near = get_close_matches(bare(name).casefold(), list(known), n=3, cutoff=0.7)
    told = " or ".join(f'"{each}"' for each in near)
    return f" Did you mean {told}?" if near else ""
