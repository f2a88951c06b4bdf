"""MiniFlux's concept sets: what to erase, in which sentences, and what must stay.

Of a thing's three synonyms the last one stays out, so that generality can be measured on a word
that training never saw; sentences use the trained wordings without "two" and "left of", so that
erasing is judged on wordings and combinations it never saw either. A style has its noun as synonym:
in this world "pencil" alone makes a sketch, and a sentence without its style must not keep it.
"""

from __future__ import annotations

import random
from dataclasses import replace

from ...concepts.names import match
from ...concepts.sets import Bands, Concept, Kind
from .captions import Scene, caption
from .cases import CHOICES, kind_of, near, scene_with, siblings, spellings
from .world import CONVERSE, INDEX, STYLES, THINGS

FAMILIES: dict[str, tuple[str, ...]] = {
    "animals": (
        "big cats",
        "canines",
        "bears",
        "rodents",
        "farm animals",
        "birds",
        "wild animals",
        "sea animals",
        "insects",
    ),
    "vehicles": ("road vehicles", "vehicles"),
    "plants": ("plants", "fruit"),
    "made things": ("dishes", "toys", "objects"),
}
KIND: dict[str, Kind] = {
    "thing": "entity",
    "colour": "abstraction",
    "style": "abstraction",
    "number": "abstraction",
    "relation": "relationship",
}
SENTENCES = 64
PER_BAND = 8
UNSEEN_NUMBER, UNSEEN_RELATION = 2, "left of"


def concept(name: str) -> Concept:
    """The concept set of anything in the world, the same every time; EraseError if unknown.

    Case, article, plural and emoji do not matter, and synonyms will do.
    """
    name = match(name, spellings()) or name
    kind = kind_of(name)
    rng = random.Random(f"concept {name}")
    return Concept(
        name=name,
        kind=KIND[kind],
        synonyms=_synonyms(name),
        irrelevant=_bands(name, rng),
        sentences=_sentences(name, rng),
    )


def held_out_synonyms(name: str) -> tuple[str, ...]:
    """Other ways to say a concept that its set does not tell: a thing's last synonym, a relation's
    converse."""
    if kind_of(name) == "thing":
        return THINGS[INDEX[name]].synonyms[2:]
    return (CONVERSE[name],) if name in CONVERSE else ()


def _synonyms(name: str) -> tuple[str, ...]:
    kind = kind_of(name)
    if kind == "thing":
        return THINGS[INDEX[name]].synonyms[:2]
    return tuple({_noun(name)} - {name}) if kind == "style" else ()


def _noun(style: str) -> str:
    """A style as a noun: "pencil sketch"."""
    return STYLES[style][0].removeprefix("a ")


def _bands(name: str, rng: random.Random) -> Bands:
    kind = kind_of(name)
    if kind != "thing":
        # "one" would leave plural nouns behind where it is put in.
        return Bands(near=tuple(n for n in siblings(name) if n != "one"))
    kin = near(name)
    own = _family(name)
    rest = [n for n in CHOICES["thing"] if n != name and n not in kin]
    mid = [n for n in rest if _family(n) == own]
    far = [n for n in rest if {_family(n), own} <= {"animals", "plants"} and n not in mid]
    none = [n for n in rest if n not in mid and n not in far]
    bands = {
        band: tuple(sorted(rng.sample(names, min(PER_BAND, len(names)))))
        for band, names in {"mid": mid, "far": far, "none": none}.items()
    }
    return Bands(near=tuple(kin), **bands)


def _family(name: str) -> str:
    group = THINGS[INDEX[name]].group
    return next(family for family, groups in FAMILIES.items() if group in groups)


def _sentences(name: str, rng: random.Random) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < SENTENCES:
        scene = scene_with(name, rng)
        if not _reserved(scene, name):
            text = caption(_sometimes_bare(scene, name, rng), rng)
            found[text.replace(_noun(name), name) if name in STYLES else text] = None
    return tuple(found)


def _reserved(scene: Scene, name: str) -> bool:
    """Whether a scene is one that only the judge may use."""
    if kind_of(name) != "thing":
        return False
    return scene.number == UNSEEN_NUMBER or scene.relation == UNSEEN_RELATION


def _sometimes_bare(scene: Scene, name: str, rng: random.Random) -> Scene:
    """A fifth of the sentences say nothing of the ground, unless it is what they are about."""
    bare = scene.ground != name and rng.random() < 0.2
    return replace(scene, ground=None) if bare else scene
