"""All that the text stage reads: the world's words, WordNet's for them, and other nouns."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from . import wordnet
from .world import ENTITIES, THINGS

COMMON = 8000  # senses from outside the world
BELOW = 8  # narrower words of a thing
LONGEST = 90  # characters of a gloss


@dataclass(frozen=True)
class Lexicon:
    """``extra`` phrases of WordNet by entity; ``senses`` from outside, each of two or more ways to
    say it (words, then the gloss)."""

    extra: dict[int, tuple[str, ...]]
    senses: list[tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> Lexicon:
        """From a folder with WordNet's files."""
        senses, own = wordnet.read(folder), wordnet.offsets(folder)
        taken = {word for e in ENTITIES for word in (e.name, *e.synonyms, *e.held_out)}
        extra = {}
        for index, offset in own.items():
            below = [senses[o].words[0] for o in wordnet.descendants(senses, offset, 1)][:BELOW]
            words = [*senses[offset].words[1:], *below]
            phrases = [word for word in words if word not in taken and len(word) < 30]
            extra[index] = (*phrases, _short(senses[offset].gloss))
        inside = {o for offset in own.values() for o in wordnet.descendants(senses, offset, 3)}
        inside |= set(own.values())
        outside = []
        for offset in wordnet.common(folder, COMMON):
            sense = senses[offset]
            if offset not in inside and not sense.proper and not taken & set(sense.words):
                words = tuple(word for word in sense.words if len(word) < 30)
                outside.append((*words, _short(sense.gloss)))
        return cls(extra, [phrases for phrases in outside if len(phrases) > 1])

    def phrases(self, index: int) -> tuple[str, ...]:
        """Everything that means an entity."""
        e = ENTITIES[index]
        told = (*e.synonyms, *e.held_out, *e.descriptions, *e.held_descriptions)
        return (e.name, *told, *self.extra.get(index, ()))

    def pair(self, rng: random.Random) -> tuple[str, str, int]:
        """Two ways to say one thing, and the entity or -1: one in three is the world's."""
        if rng.random() < 0.33:
            index = rng.choice(THINGS)
            first, second = rng.sample(self.phrases(index), 2)
            return first, second, index
        phrases = rng.choice(self.senses)
        first, second = rng.sample(phrases, 2)
        return first, second, -1

    def corpus(self) -> list[str]:
        """Every phrase once."""
        inside = [phrase for i in range(len(ENTITIES)) for phrase in self.phrases(i)]
        return inside + [phrase for phrases in self.senses for phrase in phrases]


def _short(gloss: str) -> str:
    """A gloss cut at a word."""
    return gloss if len(gloss) <= LONGEST else gloss[:LONGEST].rsplit(" ", 1)[0]
