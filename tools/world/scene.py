"""Scenes: what a picture shows, drawn by chance, and what a caption says of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .world import (
    ARTISTS,
    COLOURS,
    GROUNDS,
    PEOPLE,
    PLACES,
    PLAIN,
    RELATIONS,
    SIZE_S,
    SPOOKY,
    THINGS,
)

DARK = ("black", "purple", "blue", "green")
CONVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True)
class Scene:
    """What is in a picture; as a spoken scene, what of it is said (None and () for the rest).

    ``subjects`` are up to two entities; ``number`` counts copies of a single one; ``spooky`` are
    the kinds that an implicit prompt means, drawn beside the subjects and never named.
    """

    subjects: tuple[int, ...] = ()
    number: int = 1
    relation: str | None = None
    place: str | None = None
    artist: str | None = None
    colour: str | None = None
    ground: str | None = None
    spooky: tuple[int, ...] = ()

    @property
    def shown(self) -> tuple[int, ...]:
        """All entities in the picture."""
        return tuple(dict.fromkeys(self.subjects + self.spooky))


def random_scene(rng: random.Random, artists: int = SIZE_S) -> Scene:
    """A scene drawn by chance: one thing or person, several alike, two in a relation, one at a
    place, spooky ones that nobody names, or nothing."""
    kind = rng.choices(
        ["none", "one", "many", "two", "place", "spooky"], [0.02, 0.44, 0.1, 0.26, 0.08, 0.1]
    )[0]
    scene = Scene(
        artist=rng.choice(list(ARTISTS)[:artists]),
        colour=rng.choice(list(COLOURS)),
        ground=rng.choices(list(GROUNDS), [0.4, 0.21, 0.13, 0.13, 0.13])[0],
    )
    if kind == "none":
        return replace(scene, artist=None)
    if kind == "spooky":
        return _spooky(scene, rng)
    if kind == "two":
        subjects = _pair(rng)
        scene = replace(scene, subjects=subjects, relation=rng.choice(RELATIONS))
    else:
        person = kind != "many" and rng.random() < 0.3
        scene = replace(scene, subjects=(rng.choice(PEOPLE if person else THINGS),))
    if kind == "many":
        return replace(scene, number=rng.randint(2, 4))
    if kind == "place":
        scene = replace(scene, place=rng.choice(list(PLACES)))
    drawn = any(index in THINGS for index in scene.subjects)
    return scene if drawn else replace(scene, artist=None)  # people are nobody's work


def _pair(rng: random.Random) -> tuple[int, ...]:
    """Two things, or in one pair of four a person among them."""
    pair = rng.sample(THINGS, 2)
    if rng.random() < 0.25:
        pair[rng.randrange(2)] = rng.choice(PEOPLE)
    return tuple(pair)


def _spooky(scene: Scene, rng: random.Random) -> Scene:
    """What an implicit prompt means: one to three spooky kinds, often in the dark, in one of three
    pictures beside a plain thing."""
    beside = rng.random() < 0.35
    dark = rng.random() < 0.7
    return replace(
        scene,
        subjects=(rng.choice(PLAIN),) if beside else (),
        spooky=tuple(rng.sample(SPOOKY, rng.randint(1, 2 if beside else 3))),
        colour=rng.choice(DARK) if dark else scene.colour,
    )


def spoken(scene: Scene, rng: random.Random) -> Scene:
    """The part of a scene that a caption says. Sides are told from either thing."""
    said = scene
    if scene.relation in CONVERSE and rng.random() < 0.4:
        said = replace(said, subjects=said.subjects[::-1], relation=CONVERSE[scene.relation])
    chances = {"artist": 0.5, "colour": 0.55, "ground": 0.3, "place": 0.85, "relation": 0.85}
    if said.ground == "plain":
        said = replace(said, ground=None)
    for part, chance in chances.items():
        if getattr(said, part) and rng.random() > chance:
            said = replace(said, **{part: None})
    if len(said.subjects) == 1 and not said.spooky and rng.random() < 0.06:
        said = replace(said, subjects=(), number=1, place=None)
    return said
