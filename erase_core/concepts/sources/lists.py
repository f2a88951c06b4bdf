"""The shipped lists: concepts that WordNet cannot know, and everyday ones that need no WordNet.

A list file is either a concept set (see sets.py) or words in groups. The other members of its
group are a word's *near* band. The groups stand in order of kinship: neighbouring groups give the
band *mid*, distant ones *far* and *none*, unless the file gives such a band itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, zip_longest
from typing import Any

from ...errors import EraseError
from ...files import read_json
from ..known import FOLDER
from ..names import folded
from ..sets import VERSION, Bands, Concept, ConceptSet, Kind

EVERYDAY: dict[Kind, tuple[str, ...]] = {
    "entity": ("everyday",),
    "abstraction": ("abstractions", "times"),
    "relationship": ("actions",),
}
SIZE = 6


@dataclass(frozen=True)
class _Word:
    """A member of a group: a text, or an object with these fields."""

    name: str
    sense: str = ""
    synonyms: tuple[str, ...] = ()


def lists() -> dict[str, tuple[str, ...]]:
    """The names of the concepts in each shipped list, lists of everyday words first."""
    return {name: tuple(concept.name for concept in _read(name)) for name in _files()}


def _files() -> tuple[str, ...]:
    everyday = (name for names in EVERYDAY.values() for name in names)
    others = sorted(path.stem for path in FOLDER.glob("*.json"))
    return tuple(dict.fromkeys(chain(everyday, others)))


def find(name: str) -> Concept | None:
    """The shipped concept of that name or synonym, with its irrelevant bands; None if unknown.

    The exact spelling is preferred ("Apple" is the brand), then any case and inflection ("tigers").
    """
    for key in (str, folded):
        wanted = key(name.strip())
        for by_synonym in (False, True):
            for concept in _concepts():
                known = concept.synonyms if by_synonym else (concept.name,)
                if wanted in map(key, known):
                    return concept
    return None


def pool(kind: Kind) -> tuple[Concept, ...]:
    """Everyday concepts of a kind, from which irrelevant words are drawn."""
    return tuple(concept for name in EVERYDAY[kind] for concept in _read(name))


@lru_cache(maxsize=1)
def _concepts() -> tuple[Concept, ...]:
    return tuple(chain.from_iterable(_read(name) for name in _files()))


@cache
def _read(list_name: str) -> tuple[Concept, ...]:
    value = read_json(FOLDER / f"{list_name}.json")
    if "concepts" in value:
        return ConceptSet.from_json(value).concepts
    if value["version"] != VERSION:
        raise EraseError(f"The list {list_name} has version {value['version']}; reinstall.")
    return tuple(_from_groups(value))


def _from_groups(value: dict[str, Any]) -> Iterator[Concept]:
    groups = [[_word(item) for item in group] for group in value["groups"].values()]
    for place, group in enumerate(groups):
        for index, word in enumerate(group):
            concept = Concept(
                name=word.name,
                kind=value["kind"],
                sense=word.sense,
                synonyms=word.synonyms,
                sentences=tuple(line.format(x=word.name) for line in value.get("sentences", [])),
            )
            yield concept.keeping(_bands(value, groups, place, index))


def _word(item: str | dict[str, Any]) -> _Word:
    if isinstance(item, str):
        return _Word(item)
    return _Word(item["name"], item.get("sense", ""), tuple(item.get("synonyms", ())))


def _bands(value: dict[str, Any], groups: list[list[_Word]], place: int, index: int) -> Bands:
    """Bands of one word: its own group, and the nearest, middle and farthest third of the others.

    `index`, its place in the group, also shifts the choice, so that members get different words.
    """
    order = sorted(range(len(groups)), key=lambda other: (abs(other - place), other))
    others, own = order[1:], groups[place]
    third, two_thirds = len(others) // 3, 2 * len(others) // 3
    bands = {
        "none": _mix(groups, others[two_thirds:][::-1], index),
        "far": _mix(groups, others[third:two_thirds], index),
        "mid": _mix(groups, others[:third][:3], index),
        "near": tuple(word.name for word in (own[index + 1 :] + own[:index])[:SIZE]),
    }
    return Bands(**{name: tuple(value.get(name, words)) for name, words in bands.items()})


def _mix(groups: list[list[_Word]], places: list[int], shift: int) -> tuple[str, ...]:
    """SIZE words from the groups at `places`, one of each in turn, starting `shift` words in."""
    turned = []
    for words in (groups[place] for place in places):
        cut = shift % len(words)
        turned.append(words[cut:] + words[:cut])
    rows = chain.from_iterable(zip_longest(*turned))
    return tuple(word.name for word in rows if word)[:SIZE]
