"""A concept with its words, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from .names import bare
from .sets import BANDS, Bands, Concept, Kind
from .sources import lists as shipped
from .sources import wordnet

Origin = Literal["lists", "WordNet"]
PER_BAND = 6


def find_concept(
    name: str,
    kind: Kind | None = None,
    sense: str | None = None,
    per_band: int = PER_BAND,
    seed: int = 0,
) -> tuple[Concept, Origin]:
    """A concept from the shipped lists or WordNet with at most ``per_band`` words in each band, and
    which it was.

    WordNet is asked when a sense is named, or a kind that the list does not have; ``seed`` is of
    its choice of words. A name that a list does not have as it stands is looked up without its
    article and emoji. EraseError when WordNet does not know it either.
    """
    found = shipped.find(name)
    if found is None and bare(name):
        name = bare(name)
        found = shipped.find(name)
    if found is None or sense or kind not in (None, found.kind):
        chosen = kind or (found.kind if found else "entity")
        return wordnet.concept_from_wordnet(name, chosen, sense or None, per_band, seed), "WordNet"
    bands = {band: getattr(found.irrelevant, band)[:per_band] for band in BANDS}
    return replace(found, irrelevant=Bands(**bands)), "lists"


def with_words(
    concept: Concept,
    synonyms: Sequence[str] | None = None,
    irrelevant: Mapping[str, Sequence[str] | None] | None = None,
    sentences: Sequence[str] = (),
) -> Concept:
    """``concept`` with the user's words, to which those found give way. None, or a band left out,
    keeps what was found; an empty list wants none. EraseError when a word of the user's to keep
    names the concept."""
    wanted = concept.synonyms if synonyms is None else synonyms
    names = tuple(word for word in wanted if word.casefold() != concept.name.casefold())
    own = {band: tuple(words) for band, words in (irrelevant or {}).items() if words is not None}
    taken = {word.casefold() for words in own.values() for word in words}
    found = {
        band: tuple(w for w in getattr(concept.irrelevant, band) if w.casefold() not in taken)
        for band in BANDS
    }
    told = replace(
        concept,
        synonyms=names,
        irrelevant=Bands(),
        sentences=tuple(sentences) or concept.sentences,
    )
    return replace(told, irrelevant=replace(told.keeping(Bands(**found)).irrelevant, **own))


def describe(concept: Concept) -> list[str]:
    """A concept for reading, line by line."""
    rows = {"synonyms": concept.synonyms}
    rows |= {band: getattr(concept.irrelevant, band) for band in BANDS}
    meaning = f", {concept.sense}" if concept.sense else ""
    head = f"{concept.name} ({concept.kind}{meaning})"
    return [head, *(f"  {name:<9} {', '.join(words) or '-'}" for name, words in rows.items())]
