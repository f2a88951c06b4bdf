"""Concept sets and their JSON (version 1): what to erase, its synonyms, what must stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..errors import EraseError
from ..files import read_json, write_json
from .known import known_synonyms
from .spans import Words

VERSION = 1
Kind = Literal["entity", "abstraction", "relationship"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BANDS = ("none", "far", "mid", "near")


@dataclass(frozen=True)
class Bands:
    """Irrelevant words by similarity to the concept: about 0.1, 0.3, 0.5, and its siblings."""

    none: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    mid: tuple[str, ...] = ()
    near: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """All words, band after band from none to near."""
        return self.none + self.far + self.mid + self.near

    def without(self, erased: Iterable[str] | Words) -> Bands:
        """The words that name none of ``erased``."""
        names = erased if isinstance(erased, Words) else Words(erased)
        return Bands(
            **{
                band: tuple(w for w in getattr(self, band) if not named_in(w, names))
                for band in BANDS
            }
        )


def named_in(text: str, words: Words) -> str | None:
    """The first of ``words`` that stands in ``text`` in any form ("cats", "black cat"), or None."""
    return words.first_in(text.replace("_", " "))


@dataclass(frozen=True)
class Concept:
    """One concept to erase.

    `sense` is a WordNet synset name ("tiger.n.02") or a few words that say which meaning is meant;
    `sentences` are prompts that contain the name, and replace the shipped templates when given.
    Raises EraseError, naming the field, for an empty or repeated word and for an unknown kind. Also
    for a word to keep that names what is to be erased: an inflection, a known synonym, or a phrase
    with it.
    """

    name: str
    kind: Kind = "entity"
    sense: str = ""
    synonyms: tuple[str, ...] = ()
    irrelevant: Bands = Bands()
    sentences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        label = f'concept "{self.name}"'
        if self.kind not in KINDS:
            raise EraseError(f"{label}: kind is {self.kind!r}; use one of {', '.join(KINDS)}.")
        _check_words(f"{label}: name and synonyms", self.erased())
        _check_words(f"{label}: irrelevant", self.irrelevant.words())
        _check_words(f"{label}: sentences", self.sentences)
        names = Words(self.names())
        for word in self.irrelevant.words():
            if named := named_in(word, names):
                raise EraseError(
                    f'{label}: irrelevant lists "{word}", which {_as(word, named)}is to be erased; '
                    "remove it there."
                )

    def erased(self) -> tuple[str, ...]:
        """The name and the synonyms."""
        return (self.name, *self.synonyms)

    def names(self) -> tuple[str, ...]:
        """The name, the synonyms, and the synonyms that the shipped lists know."""
        return self.erased() + known_synonyms(self.name, self.kind, self.sense)

    def keeping(self, found: Bands) -> Concept:
        """The concept with the words of ``found`` that do not name it."""
        return replace(self, irrelevant=found.without(self.names()))

    @property
    def anchor(self) -> str:
        """What is drawn in the concept's place; "" when it has no irrelevant words.

        One word for all its sentences, since of many only a blur could be learned. It is a relative
        where there is one, but nobody's name, so that no person is drawn as another.
        """
        bands = self.irrelevant
        words = bands.mid + bands.near + bands.far + bands.none
        return next((word for word in words if not word[0].isupper()), words[0] if words else "")

    def irrelevant_words(self) -> tuple[str, ...]:
        """The words that must stay, of all bands."""
        return self.irrelevant.words()


@dataclass(frozen=True)
class ConceptSet:
    """Several concepts that are erased together.

    Raises EraseError for an empty set, a concept named twice, or a concept that another one of the
    set wants to keep.
    """

    concepts: tuple[Concept, ...]

    def __post_init__(self) -> None:
        if not self.concepts:
            raise EraseError("concepts is empty; name at least one concept to erase.")
        _check_words("concepts: name", tuple(concept.name for concept in self.concepts))
        names = Words(self.names())
        for concept in self.concepts:
            for word in concept.irrelevant_words():
                if named := named_in(word, names):
                    raise EraseError(
                        f'concept "{concept.name}": irrelevant lists "{word}", which '
                        f"{_as(word, named)}another concept of the set erases; remove it there."
                    )

    def names(self) -> tuple[str, ...]:
        """Every name of what is to be erased, those that the shipped lists know among them."""
        return tuple(name for concept in self.concepts for name in concept.names())

    @classmethod
    def together(cls, concepts: Iterable[Concept]) -> ConceptSet:
        """The concepts as one set; what one of them erases, none keeps.

        A concept that is there twice gets the words of both; a word in two bands stays in the
        first's. EraseError when a concept has two kinds.
        """
        merged: dict[str, Concept] = {}
        for concept in concepts:
            known = merged.get(concept.name.casefold())
            merged[concept.name.casefold()] = _join(known, concept) if known else concept
        names = Words(name for concept in merged.values() for name in concept.names())
        return cls(
            tuple(replace(c, irrelevant=c.irrelevant.without(names)) for c in merged.values())
        )

    def merge(self, other: ConceptSet) -> ConceptSet:
        """Both sets as one, as :meth:`together` has it."""
        return self.together((*self.concepts, *other.concepts))

    def to_json(self) -> dict[str, Any]:
        """The set as plain JSON values."""
        concepts = [asdict(concept) for concept in self.concepts]
        plain = json.loads(json.dumps(concepts))  # tuples become lists
        return {"version": VERSION, "concepts": plain}

    @classmethod
    def from_json(cls, value: object) -> ConceptSet:
        """Read plain JSON values strictly; EraseError names the first field that is wrong."""
        fields = _mapping(value, "the concept set", ("version", "concepts"))
        if fields.get("version") != VERSION or isinstance(fields.get("version"), bool):
            raise EraseError(
                f"version is {fields.get('version')!r}; this program reads version {VERSION}."
            )
        concepts = fields.get("concepts")
        if not isinstance(concepts, list):
            raise EraseError("concepts must be a list of concepts.")
        return cls(tuple(read_concept(item, f"concepts[{i}]") for i, item in enumerate(concepts)))

    def save(self, path: Path | str) -> None:
        """Write the JSON file, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> ConceptSet:
        """Read a JSON file; EraseError names the file and what is wrong in it."""
        value = read_json(path)
        try:
            return cls.from_json(value)
        except EraseError as error:
            raise EraseError(f"{path}: {error}") from error


def read_concept(value: object, where: str) -> Concept:
    """A concept from plain JSON values, `where` naming its place in error messages."""
    names = ("name", "kind", "sense", "synonyms", "irrelevant", "sentences")
    fields = _mapping(value, where, names)
    bands = _mapping(fields.get("irrelevant", {}), f"{where}.irrelevant", BANDS)
    try:
        return Concept(
            name=_text(fields.get("name"), f"{where}.name"),
            kind=cast(Kind, _text(fields.get("kind", "entity"), f"{where}.kind")),
            sense=_text(fields.get("sense", ""), f"{where}.sense"),
            synonyms=_texts(fields.get("synonyms", []), f"{where}.synonyms"),
            irrelevant=Bands(
                **{
                    name: _texts(words, f"{where}.irrelevant.{name}")
                    for name, words in bands.items()
                }
            ),
            sentences=_texts(fields.get("sentences", []), f"{where}.sentences"),
        )
    except EraseError as error:
        message = str(error)
        raise error if message.startswith(where) else EraseError(f"{where}: {message}") from None


def _mapping(value: object, where: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise EraseError(f"{where} must be an object with {', '.join(names)}.")
    unknown = sorted(value.keys() - set(names))
    if unknown:
        raise EraseError(f"{where}.{unknown[0]} is no known field; use {', '.join(names)}.")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise EraseError(f"{where} must be a text, not {value!r}.")
    return value.strip()


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise EraseError(f"{where} must be a list of texts.")
    return tuple(_text(item, f"{where}[{i}]") for i, item in enumerate(value))


def _keys(words: Iterable[str]) -> set[str]:
    return {word.casefold() for word in words}


def _check_words(where: str, words: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for word in words:
        if not word.strip():
            raise EraseError(f"{where}: there is an empty entry; fill it in or remove it.")
        if word.casefold() in seen:
            raise EraseError(f'{where}: "{word}" is there twice; remove one.')
        seen.add(word.casefold())


def _as(word: str, named: str) -> str:
    """Why a word is what it names, unless it is that word itself."""
    return "" if word.casefold() == named.casefold() else f'names "{named}", which '


def _unique(words: Iterable[str], drop: set[str]) -> tuple[str, ...]:
    """The words in order, without repetitions and without those in `drop`, which grows by them."""
    kept = []
    for word in words:
        if word.casefold() not in drop:
            drop.add(word.casefold())
            kept.append(word)
    return tuple(kept)


def _join(a: Concept, b: Concept) -> Concept:
    if a.kind != b.kind:
        raise EraseError(f'concept "{a.name}": kind is {a.kind} and {b.kind}; make them one.')
    synonyms = _unique(a.synonyms + b.synonyms, _keys([a.name]))
    seen = _keys(a.irrelevant.words())
    bands = {n: getattr(a.irrelevant, n) + _unique(getattr(b.irrelevant, n), seen) for n in BANDS}
    named = Concept(
        a.name,
        a.kind,
        sense=a.sense or b.sense,
        synonyms=synonyms,
        sentences=_unique(a.sentences + b.sentences, set()),
    )
    return named.keeping(Bands(**bands))
