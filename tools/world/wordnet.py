"""WordNet's nouns (Debian's wordnet-base, or any folder with ``data.noun`` and ``index.noun``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .world import ENTITIES, THINGS

# Where the first sense of a name is not the world's.
SENSES = {
    "tiger": 2,
    "chicken": 2,
    "turtle": 2,
    "whale": 2,
    "octopus": 2,
    "banana": 2,
    "strawberry": 1,
    "watermelon": 2,
    "pineapple": 2,
    "mushroom": 2,
    "cake": 3,
    "crown": 4,
    "ghost": 3,
}
UNKNOWN = ("jack-o-lantern",)  # WordNet's is a fungus


@dataclass(frozen=True)
class Synset:
    """A sense: its words, its gloss without examples, the senses below it, how often it is used."""

    words: tuple[str, ...]
    gloss: str
    below: tuple[int, ...]
    proper: bool


def read(folder: Path) -> dict[int, Synset]:
    """All noun senses by their offset in the file."""
    senses = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        told, gloss = line.split("|", 1)
        cells = told.split()
        count = int(cells[3], 16)
        words = [cells[4 + 2 * i].replace("_", " ") for i in range(count)]
        pointers = cells[5 + 2 * count :]
        below = [int(pointers[i + 1]) for i, cell in enumerate(pointers) if cell == "~"]
        senses[int(cells[0])] = Synset(
            tuple(word.lower() for word in words),
            re.split(r'; "|;', gloss)[0].strip().lower(),
            tuple(below),
            words[0][0].isupper(),
        )
    return senses


def first_senses(folder: Path) -> dict[str, list[int]]:
    """Offsets of a word's senses, the commonest first."""
    found = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            cells = line.split()
            found[cells[0].replace("_", " ")] = [int(c) for c in cells[6 + int(cells[3]) :]]
    return found


def common(folder: Path, count: int) -> list[int]:
    """The ``count`` senses that WordNet's own tagged texts use most."""
    counts: dict[str, int] = {}
    for line in (folder / "cntlist.rev").read_text().splitlines():
        key, _, number = line.split()
        if "%1:" in key:
            counts[key] = int(number)
    senses = first_senses(folder)
    by_use: dict[int, int] = {}
    for key, number in counts.items():
        word = key.split("%")[0].replace("_", " ")
        for offset in senses.get(word, [])[:1]:
            by_use[offset] = by_use.get(offset, 0) + number
    return sorted(by_use, key=lambda offset: (-by_use[offset], offset))[:count]


def offsets(folder: Path) -> dict[int, int]:
    """The sense of each thing of the world, by its entity; a few have none."""
    senses = first_senses(folder)
    found = {}
    for index in THINGS:
        name = ENTITIES[index].name
        if name not in UNKNOWN:
            found[index] = senses[name][SENSES.get(name, 1) - 1]
    return found


def descendants(senses: dict[int, Synset], root: int, depth: int = 2) -> Iterable[int]:
    """The senses below one, down to a depth."""
    for offset in senses[root].below:
        yield offset
        if depth > 1:
            yield from descendants(senses, offset, depth - 1)
