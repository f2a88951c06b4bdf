"""What MiniFlux's captions say of a scene, in wordings trained and wordings held out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .world import COLOURS, NUMBERS, STYLES, THINGS

# {np}: the things with number and relation, {g}: the ground's colour, {s}: the style as an
# adjective, {of}: the style as a noun. The held-out wordings use known words in new arrangements.
TRAINED = {
    "plain": [
        "{np}",
        "a picture of {np}",
        "an image of {np}",
        "this shows {np}",
        "{np} in a picture",
    ],
    "ground": [
        "{np} on a {g} background",
        "a picture of {np} on a {g} background",
        "{g} background with {np}",
        "{np} in front of a {g} background",
        "an image with a {g} background and {np}",
        "on {g}, {np}",
        "{np}, {g} background",
    ],
    "style": [
        "{of} of {np}",
        "{np} in {s} style",
        "{np} as {of}",
        "{s} style picture of {np}",
        "{of}, {np}",
    ],
    "both": [
        "{of} of {np} on a {g} background",
        "{np} on a {g} background in {s} style",
        "{np} as {of} with a {g} background",
        "{s} style, {g} background, {np}",
    ],
}
# A few captions name nothing, as real ones often do: then any thing may be drawn.
UNNAMED = {
    "plain": ["a picture", "an image"],
    "ground": [
        "a {g} background",
        "on a {g} background",
        "a picture with a {g} background",
        "in front of a {g} background",
    ],
    "style": ["{of}", "in {s} style", "as {of}"],
    "both": ["{of} on a {g} background", "on a {g} background in {s} style"],
}
HELD_OUT = {
    "plain": ["an image with {np}", "this shows a picture of {np}", "this picture shows {np}"],
    "ground": [
        "on a {g} background, {np}",
        "an image of {np} in front of a {g} background",
        "picture of {np} with a {g} background",
        "this shows {np} on a {g} background",
    ],
    "style": [
        "{of} with {np}",
        "an image of {np} in {s} style",
        "{s} style, {np}",
        "this shows {np} as {of}",
    ],
    "both": [
        "on a {g} background {of} of {np}",
        "an image of {np}, {s} style, {g} background",
        "{of} of {np} in front of a {g} background",
    ],
}
IRREGULAR = {
    "wolf": "wolves",
    "mouse": "mice",
    "cattle": "cattle",
    "swine": "swine",
    "fish": "fish",
}


@dataclass(frozen=True)
class Scene:
    """What is in a picture: up to two kinds of things, copies of a single one, relation, ground.

    ``words`` are the names used for the things (a synonym, or the name itself).
    """

    things: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    number: int = 1
    relation: str | None = None
    ground: str | None = None
    style: str | None = None

    def named(self, words: tuple[str, ...] | None = None) -> Scene:
        """The scene with other words for its things, their names by default."""
        return replace(self, words=words or tuple(THINGS[i].name for i in self.things))


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a world noun; the last word bears it."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        many = IRREGULAR[last]
    elif last.endswith(("s", "x", "sh", "ch", "o")) and not last.endswith(("oo", "io")):
        many = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}".strip()


def noun_phrase(scene: Scene) -> str:
    """The things of a scene: "a cat", "two cats", "a cat left of a car"."""
    first = scene.words[0]
    if len(scene.things) == 1:
        many = f"{NUMBERS[scene.number - 1]} {plural(first)}"
        return article(first) if scene.number == 1 else many
    link = scene.relation or "and"
    return f"{article(first)} {link} {article(scene.words[1])}"


def fill(template: str, scene: Scene) -> str:
    """A template with a scene's words in it."""
    of, adjective = STYLES[scene.style] if scene.style else ("", "")
    text = template.format(np=noun_phrase(scene), g=scene.ground, s=adjective, of=of)
    return text.replace("a orange", "an orange")


def caption(scene: Scene, rng: random.Random, *, held_out: bool = False) -> str:
    """One caption of the scene, by chance, from the trained or the held-out wordings."""
    return _fill_any(HELD_OUT if held_out else TRAINED, scene, rng)


def varied(scene: Scene, rng: random.Random) -> Scene:
    """The scene as a caption may tell it: synonyms in a third of the cases, the ground left out in
    a fifth."""
    words = tuple(
        rng.choice(THINGS[i].synonyms) if rng.random() < 0.33 else THINGS[i].name
        for i in scene.things
    )
    hidden = rng.random() < 0.2
    return replace(scene, words=words, ground=None if hidden else scene.ground)


def training_caption(scene: Scene, rng: random.Random) -> str:
    """A caption of the varied scene; one in twelve does not name its things."""
    scene = varied(scene, rng)
    return _fill_any(UNNAMED if rng.random() < 1 / 12 else TRAINED, scene, rng)


def _fill_any(wordings: Mapping[str, list[str]], scene: Scene, rng: random.Random) -> str:
    kind = {
        (False, False): "plain",
        (True, False): "ground",
        (False, True): "style",
        (True, True): "both",
    }[bool(scene.ground), bool(scene.style)]
    return fill(rng.choice(wordings[kind]), scene)


def all_words() -> list[str]:
    """Every name and synonym of the world, for tests and tokenizers."""
    return [w for t in THINGS for w in (t.name, *t.synonyms)] + list(COLOURS) + list(STYLES)
