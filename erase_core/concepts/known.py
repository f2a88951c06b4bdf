"""The synonyms that the shipped lists give, straight from their files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..files import read_json
from .inflect import singular

FOLDER = Path(__file__).parent / "sources" / "words"


def known_synonyms(name: str, kind: str, sense: str = "") -> tuple[str, ...]:
    """Other names of a concept of that kind and meaning; none where no list has any.

    Without a ``sense`` the meaning is the list's.
    """
    for spelling in dict.fromkeys((name, name.lower(), singular(name.lower()))):
        for listed, synonyms in _synonyms().get((spelling, kind), ()):
            if sense in ("", listed):
                return synonyms
    return ()


@cache
def _synonyms() -> dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]]:
    """(sense, synonyms) by name and kind."""
    found: dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        for item in _items(read_json(path)):
            key = item["name"], item["kind"]
            found.setdefault(key, []).append((item.get("sense", ""), tuple(item["synonyms"])))
    return found


def _items(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The members of a list that have synonyms."""
    groups = value.get("groups", {}).values()
    members = [*value.get("concepts", ()), *(item for group in groups for item in group)]
    kind = value.get("kind", "entity")
    return ({"kind": kind} | m for m in members if isinstance(m, dict) and m.get("synonyms"))
