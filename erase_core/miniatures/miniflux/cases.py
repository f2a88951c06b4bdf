"""Questions to ask of MiniFlux: prompts in wordings that it never trained on.

A :class:`Case` is one picture to make and one question to ask of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from ...concepts.names import match, suggestion
from ...errors import EraseError
from .captions import Scene, article, caption, noun_phrase
from .world import (
    COLOURLESS,
    COLOURS,
    CONVERSE,
    INDEX,
    NUMBERS,
    RELATIONS,
    STYLES,
    THINGS,
    neighbours,
)

KINDS = ("thing", "colour", "style", "number", "relation")
CHOICES: dict[str, tuple[str, ...]] = {
    "thing": tuple(thing.name for thing in THINGS),
    "colour": tuple(COLOURS),
    "style": tuple(STYLES),
    "number": NUMBERS,
    "relation": RELATIONS,
}
# What a relation is called from the other side, a mutual one included.
TURNED = CONVERSE | {name: name for name in ("hugging", "kissing", "holding hands with")}


@dataclass(frozen=True)
class Case:
    """A prompt and a seed, the scene they stand for, and the concept to look for in the picture."""

    prompt: str
    seed: int
    scene: Scene
    concept: str


def kind_of(concept: str) -> str:
    """Which kind of thing in the world a concept is; EraseError for one it does not know."""
    for kind, names in CHOICES.items():
        if concept in names:
            return kind
    every = [name for names in CHOICES.values() for name in names]
    raise EraseError(
        f'MiniFlux does not know "{concept}".{suggestion(concept, every)} It draws '
        f"{len(CHOICES['thing'])} things, colours, styles, numbers and relations; "
        "docs/miniflux.md lists them."
    )


def undrawn(words: Iterable[str]) -> list[str]:
    """Those words that name nothing in the world."""
    return [word for word in dict.fromkeys(words) if match(word, spellings()) is None]


@cache
def spellings() -> dict[str, str]:
    """The name of everything in the world by each of its names."""
    found = {synonym: thing.name for thing in THINGS for synonym in thing.synonyms}
    return found | {name: name for names in CHOICES.values() for name in names}


def scene_with(concept: str, rng: random.Random, *, pair: bool = False) -> Scene:
    """A random scene that shows the concept; ``pair`` puts a second thing beside a thing."""
    kind = kind_of(concept)
    thing = INDEX[concept] if kind == "thing" else rng.randrange(len(THINGS))
    scene = Scene(things=(thing,), ground=rng.choice(list(COLOURS))).named()
    if kind == "colour":
        scene = replace(scene, ground=concept)
    elif kind == "style":
        scene = replace(scene, style=concept)
    elif kind == "number":
        scene = replace(scene, number=NUMBERS.index(concept) + 1)
    elif kind == "relation":
        scene = _pair(scene, concept, rng)
    elif pair:
        scene = _pair(scene, rng.choice(RELATIONS), rng)
    else:
        scene = _varied(scene, rng)
    return replace(scene, ground=None) if scene.style in COLOURLESS else scene


def _pair(scene: Scene, relation: str, rng: random.Random) -> Scene:
    """A second thing in a relation, the first one its subject or its object."""
    other = rng.choice([i for i in range(len(THINGS)) if i not in scene.things])
    things = (*scene.things, other) if rng.random() < 0.5 else (other, *scene.things)
    return replace(scene, things=things, relation=relation).named()


def _varied(scene: Scene, rng: random.Random) -> Scene:
    """Alone, several, beside another thing, or in a style."""
    form = rng.choices(("one", "many", "pair", "style"), (4, 2, 3, 1))[0]
    if form == "many":
        return replace(scene, number=rng.randint(2, 4))
    if form == "pair":
        return _pair(scene, rng.choice(RELATIONS), rng)
    return replace(scene, style=rng.choice(list(STYLES))) if form == "style" else scene


def cases(concepts: Sequence[str], count: int, seed: int, *, pair: bool = False) -> list[Case]:
    """``count`` cases going round the ``concepts``, in held-out wordings."""
    rng = random.Random(f"cases {seed}")
    made = []
    for index in range(count):
        concept = concepts[index % len(concepts)]
        scene = scene_with(concept, rng, pair=pair)
        prompt = caption(scene, rng, held_out=True)
        made.append(Case(prompt, rng.randrange(2**31), scene, concept))
    return made


def reworded(case: Case, word: str, rng: random.Random) -> Case:
    """The same question with a synonym for the thing that is looked for."""
    names = (THINGS[i].name for i in case.scene.things)
    words = tuple(word if name == case.concept else name for name in names)
    prompt = caption(case.scene.named(words), rng, held_out=True)
    return replace(case, prompt=prompt)


def paraphrase(case: Case, rng: random.Random) -> str:
    """Another prompt for the case's scene, in a wording that no training saw.

    Things go by their synonyms, numbers are counted out ("a cat and a cat"), relations are told
    from the other side; colours and styles have no other names in this world.
    """
    kind, scene = kind_of(case.concept), case.scene
    if kind == "thing":
        return reworded(case, rng.choice(THINGS[INDEX[case.concept]].synonyms), rng).prompt
    if kind == "number":
        counted = " and ".join([article(scene.words[0])] * scene.number)
        return case.prompt.replace(noun_phrase(scene), counted)
    if scene.relation in TURNED:
        other = TURNED[scene.relation]
        scene = replace(scene, things=scene.things[::-1], words=scene.words[::-1], relation=other)
    return caption(scene, rng, held_out=True)


def synonym_cases(concept: str, synonyms: Sequence[str], count: int, seed: int) -> list[Case]:
    """Cases of a thing under other names."""
    rng = random.Random(f"synonyms {seed}")
    plain = cases([concept], count, seed)
    return [reworded(case, synonyms[i % len(synonyms)], rng) for i, case in enumerate(plain)]


def companion_cases(concept: str, count: int, seed: int) -> list[Case]:
    """Cases of a concept beside something else, asking for that something else."""
    made = cases([concept], count, seed, pair=True)
    return [replace(case, concept=_companion(case, concept)) for case in made]


def _companion(case: Case, concept: str) -> str:
    names = [THINGS[i].name for i in case.scene.things if THINGS[i].name != concept]
    return names[0]


def others(concept: str) -> list[str]:
    """Everything that must stay when the concept goes: its kind's other members, and all things."""
    kind, same = kind_of(concept), siblings(concept)
    if kind == "thing":
        return same
    rest = [name for name in CHOICES["thing"] if name != concept]
    return [name for i, name in enumerate(rest) for name in (name, same[i % len(same)])]


def near(concept: str) -> list[str]:
    """The nearest neighbours: a thing's group, else the other members of the kind."""
    return neighbours(concept) if kind_of(concept) == "thing" else siblings(concept)


def siblings(concept: str) -> list[str]:
    """The other members of a concept's kind, but for one that says the same the other way round."""
    same = (concept, CONVERSE.get(concept))
    return [name for name in CHOICES[kind_of(concept)] if name not in same]


def asked_for(scene: Scene) -> list[str]:
    """The concepts of a scene: things, style, ground where it is visible, number, relation."""
    names = [THINGS[i].name for i in scene.things]
    if len(scene.things) == 1:
        names.append(NUMBERS[scene.number - 1])
    if scene.ground and scene.style not in COLOURLESS:
        names.append(scene.ground)
    return names + [name for name in (scene.style, scene.relation) if name]
