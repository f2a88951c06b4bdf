"""Our sentences in the language of the person at the page.

The core speaks English. What of it people read in the graph and on sheets goes through
:func:`said`: ``locales/zh/sentences.json`` has English sentences with numbered blanks, and their
Chinese. What is not there stays English. The page says which language it is in when a run is
queued, see web/host.js: the host's own setting is unset where the browser's language is taken.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from re import Pattern
from re import compile as regex
from typing import Any

import folder_paths

from ..erase_core.errors import EraseError
from ..erase_core.files import read_json

SETTING = "EraseAnything.Language"  # the same in web/host.js
SENTENCES = Path(__file__).parent.parent / "locales" / "zh" / "sentences.json"
BLANK = regex(r"\{\d+\}")


def settings() -> dict[str, Any]:
    """What the host's page is set to, as far as it was ever told."""
    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        return read_json(path)
    except EraseError:  # there is none yet, as on a new host
        return {}


def said(text: str) -> str:
    """A sentence for the person at the page; in English if it is not known in their language."""
    told = settings()
    language = told.get(SETTING) or told.get("Comfy.Locale") or ""
    return chinese(text) if str(language).startswith("zh") else text


def chinese(text: str) -> str:
    """A sentence in Chinese, or as it is; what fills its blanks, and what follows a name and a
    colon, may be sentences, too."""
    for pattern, words in _sentences():
        if found := pattern.fullmatch(text):
            return words.format(*(_filled(text, *span) for span in found.regs[1:]))
    head, colon, tail = text.partition(": ")
    told = chinese(tail) if colon else tail
    return text if told == tail else f"{chinese(head)}\uff1a{told}"


def _filled(text: str, start: int, end: int) -> str:
    """What fills a blank of a text; between quotation marks stand a person's own words."""
    part = text[start:end]
    return part if text[max(0, start - 1)] in '"“' else chinese(part)


@cache
def _sentences() -> list[tuple[Pattern[str], str]]:
    """Patterns and what they become, those with the most letters of their own first."""
    known: dict[str, str] = read_json(SENTENCES)
    ordered = sorted(known, key=lambda english: -len(BLANK.sub("", english)))
    return [(_pattern(english), known[english]) for english in ordered]


def _pattern(english: str) -> Pattern[str]:
    """Blanks are numbered in their order in English."""
    return regex("(.*?)".join(map(re.escape, BLANK.split(english))), re.DOTALL)
