"""Synonyms and irrelevant words from the shipped WordNet 3.0, through NLTK.

Similarity is that of Wu and Palmer (1994), in [0, 1]: tiger and car .31, rose .46, lion .93.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TextIO

from ...errors import EraseError
from ..sets import Bands, Concept, Kind
from ..spans import word_spans
from .database import database
from .lists import pool

# What a picture of each kind most likely shows, in WordNet's own division into files; twice counts
# double (a beaver is an animal before it is a hat).
_LIKELY: dict[Kind, str] = {
    "entity": "animal animal artifact food object phenomenon plant",
    "abstraction": "attribute time all communication",
    "relationship": "contact motion social perception",
}
_PARTS: dict[Kind, str] = {"entity": "n", "abstraction": "nas", "relationship": "v"}
_COMPARED: dict[Kind, str] = {"entity": "n", "abstraction": "n", "relationship": "v"}
_RANGES = {"none": (0.0, 0.2), "far": (0.2, 0.4), "mid": (0.4, 0.65)}
NEAR, SIBLING = 0.8, 0.65


@dataclass(frozen=True)
class Sense:
    """One meaning of a word: its synset's name ("tiger.n.02"), definition and examples."""

    name: str
    definition: str
    examples: tuple[str, ...]


def senses(word: str, kind: Kind = "entity") -> list[Sense]:
    """The meanings of `word` that a concept of `kind` can have, the likeliest first.

    Empty when WordNet does not know the word.
    """
    return [
        Sense(found.name(), found.definition(), tuple(found.examples()))
        for found in _ranked(word, kind, _PARTS[kind])
    ]


def synonyms(word: str, sense: str) -> list[str]:
    """The other names of the meaning `sense`, without `word` and its inflections."""
    names = (_plain(name) for name in _synset(sense).lemma_names())
    return list(dict.fromkeys(name for name in names if not _same(name, word)))


def irrelevant(
    word: str, sense: str, count_per_band: int = 6, seed: int = 0, kind: Kind = "entity"
) -> Bands:
    """Words to keep, by Wu-Palmer similarity to the meaning `sense`; the same seed, the same words.

    none <= .2 < far <= .4 < mid <= .65, drawn from the shipped everyday words of the kind; a band
    that has too few takes the words next to it. `near` are siblings: .8 or more, or under the same
    hypernym, or at least .65; never above or below the meaning. May be shorter than asked.
    """
    target = _synset(sense)
    scores = _scores(word, target, kind)
    near = tuple(_near(word, target, scores)[:count_per_band])
    rest = {name: s for name, s in scores.items() if s < NEAR and name not in near}
    draw = random.Random(seed)
    bands = {band: _band(rest, band, count_per_band, draw) for band in _RANGES}
    return Bands(near=near, **bands)


def concept_from_wordnet(
    word: str, kind: Kind, sense: str | None = None, per_band: int = 6, seed: int = 0
) -> Concept:
    """A concept with synonyms and irrelevant words; `sense` None means the likeliest meaning.

    EraseError when WordNet does not know the word or the sense, or when the sense is another
    word's.
    """
    found = senses(word, kind)
    known = _wordnet().synsets(_lemma(word))
    if sense and known and _synset(sense) not in known:
        raise EraseError(
            f'"{sense}" is no meaning of "{word}"; choose one of its own, or leave the meaning out.'
        )
    if sense is None and not found:
        raise EraseError(
            f'WordNet does not know "{word}" as {kind}; give its irrelevant words by hand, in a '
            'concepts file or in the node with the source "by hand".'
        )
    chosen = sense or found[0].name
    same = synonyms(word, chosen)
    bands = irrelevant(word, chosen, per_band, seed, kind)
    return Concept(word, kind, sense=chosen, synonyms=tuple(same)).keeping(bands)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _lemma(word: str) -> str:
    return word.strip().lower().replace(" ", "_")


def _same(name: str, word: str) -> bool:
    """Whether a name is the word itself or an inflection of it."""
    return (0, len(name)) in word_spans(name, word.strip().lower())


def _synset(sense: str) -> Any:
    reader = _wordnet()
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        return reader.synset(sense)
    except (ValueError, WordNetError) as error:
        raise EraseError(
            f'WordNet has no sense "{sense}"; pick one that `eraseanything concepts` lists.'
        ) from error


def _ranked(word: str, kind: Kind, parts: str) -> list[Any]:
    """Synsets of a word by how often WordNet's texts mean them, thrice for what a picture shows.

    A synset that is named after the word counts twice: turtle, before turtleneck.
    """
    likely, uses = _LIKELY[kind].split(), _uses()

    def weight(synset: Any) -> int:
        own = [lemma for lemma in synset.lemmas() if _same(_plain(lemma.name()), word)]
        total = 1 + sum(uses.get(lemma.key(), 0) for lemma in own)
        total *= 3 * likely.count(synset.lexname().split(".")[1]) or 1
        return -total * (2 if synset.lemmas()[0] in own else 1)

    found = [synset for synset in _wordnet().synsets(_lemma(word)) if synset.pos() in parts]
    return sorted((synset for synset in found if not synset.instance_hypernyms()), key=weight)


@lru_cache(maxsize=1)
def _uses() -> dict[str, int]:
    """How often each meaning of each word stands in WordNet's texts, by sense key."""
    with _wordnet().open("cntlist.rev") as file:
        rows = (line.split() for line in file.read().splitlines())
        return {row[0]: int(row[2]) for row in rows if len(row) == 3}


def _scores(word: str, target: Any, kind: Kind) -> dict[str, float]:
    """Similarity of the everyday words to a synset; without those above, below or naming it."""
    family, names = _family(target), synonyms(word, target.name())
    compared = target
    if target.pos() not in _COMPARED[kind]:  # an adjective has no place in the hierarchy
        compared = next(iter(_ranked(word, kind, _COMPARED[kind])), target)
    return {
        name: float(synset and compared.wup_similarity(synset) or 0.0)
        for name, synset in _pool(kind)
        if synset not in family and not word_spans(name, word) and name not in names
    }


@lru_cache(maxsize=3)
def _pool(kind: Kind) -> tuple[tuple[str, Any], ...]:
    """The everyday words of a kind, each with its likeliest synset (None: not in WordNet)."""
    return tuple((concept.name, _meaning(concept)) for concept in pool(kind))


def _meaning(concept: Concept) -> Any:
    """The synset that a shipped concept names, else the likeliest one that can be compared."""
    if concept.sense:
        return _synset(concept.sense)
    return next(iter(_ranked(concept.name, concept.kind, _COMPARED[concept.kind])), None)


def _family(synset: Any) -> set[Any]:
    """A synset with all that is above and below it."""
    above = synset.closure(lambda s: s.hypernyms())
    below = synset.closure(lambda s: s.hyponyms() + s.instance_hyponyms())
    return {synset, *above, *below}


def _near(word: str, target: Any, scores: dict[str, float]) -> list[str]:
    """Near words, best first: everyday ones and siblings in use, then those a little farther."""
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    siblings = sorted(_siblings(target), key=lambda pair: (-pair[1], pair[0]))
    erased = synonyms(word, target.name())
    others = [(n, uses) for n, uses in siblings if n not in erased and not word_spans(n, word)]
    steps = (
        (name for name in ranked if scores[name] >= NEAR),
        (name for name, uses in others if uses),
        (name for name in ranked if SIBLING <= scores[name] < NEAR),
        (name for name, uses in others if not uses),
    )
    return list(dict.fromkeys(chain.from_iterable(steps)))


def _siblings(target: Any) -> Iterator[tuple[str, int]]:
    """(name, uses in WordNet's texts) of the synsets beside `target` that are no proper names."""
    family, uses = _family(target), _uses()
    for sibling in {s for parent in target.hypernyms() for s in parent.hyponyms()} - family:
        first = sibling.lemmas()[0]
        if first.name().islower():
            yield _plain(first.name()), uses.get(first.key(), 0)


def _band(scores: dict[str, float], band: str, count: int, draw: random.Random) -> tuple[str, ...]:
    """`count` words of a band, taken out of `scores`; the nearest others where it has too few."""
    low, high = _RANGES[band]
    inside = [name for name, score in scores.items() if low < score <= high or score == low == 0.0]
    chosen = draw.sample(sorted(inside), min(count, len(inside)))
    middle = (low + high) / 2
    outside = sorted(scores.keys() - set(inside), key=lambda n: (abs(scores[n] - middle), n))
    chosen += outside[: count - len(chosen)]
    for name in chosen:
        del scores[name]
    return tuple(chosen)


@lru_cache(maxsize=1)
def _wordnet() -> Any:
    """NLTK's reader over the shipped database."""
    import nltk  # takes a second, and only this module needs it
    from nltk.corpus.reader import WordNetCorpusReader

    folder = database()

    class Reader(WordNetCorpusReader):
        def open(self, file: str) -> TextIO:
            return open(folder / file, encoding="utf-8")  # NLTK's own would want to own the file

        def map_wn(self, version: str = "wordnet") -> None:
            return None  # would read index.sense, for languages other than English

    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # NLTK 3.10 reads nowhere else
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about languages other than English
        return Reader(str(folder), None)
