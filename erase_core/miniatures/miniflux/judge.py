"""Prompts in wordings that MiniFlux never trained on, and what the recogniser sees in the answers.

A :class:`Case` is one picture to make and one question to ask of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import EraseError
from .captions import Scene, caption
from .recogniser import Recogniser, Seen
from .world import (
    COLOURLESS,
    COLOURS,
    CONVERSE,
    INDEX,
    LAYOUT_OF,
    LAYOUTS,
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
    raise EraseError(
        f'MiniFlux does not know "{concept}"; it knows: {", ".join(sum(CHOICES.values(), ()))}.'
    )


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


@torch.no_grad()
def recognise(model: Recogniser, pictures: Tensor, batch: int = 100) -> Seen:
    """What the recogniser sees in pictures (N, 128, 128, 3) uint8."""
    parts = [model(part.permute(0, 3, 1, 2).float() / 255) for part in pictures.split(batch)]
    return Seen(
        torch.cat([p.maps for p in parts]),
        torch.cat([p.things for p in parts]),
        {name: torch.cat([p.heads[name] for p in parts]) for name in parts[0].heads},
    )


def judge(seen: Seen, made: Sequence[Case]) -> list[bool]:
    """Whether each picture shows the concept its case asks for."""
    return [_shows(seen, row, case) for row, case in enumerate(made)]


def agreement(seen: Seen, made: Sequence[Case]) -> list[bool]:
    """Whether each picture shows everything that its case's scene asks for."""
    return [
        all(_shows(seen, row, replace(case, concept=name)) for name in asked_for(case.scene))
        for row, case in enumerate(made)
    ]


def asked_for(scene: Scene) -> list[str]:
    """The concepts of a scene: things, style, ground where it is visible, number, relation."""
    names = [THINGS[i].name for i in scene.things]
    if len(scene.things) == 1:
        names.append(NUMBERS[scene.number - 1])
    if scene.ground and scene.style not in COLOURLESS:
        names.append(scene.ground)
    return names + [name for name in (scene.style, scene.relation) if name]


def _shows(seen: Seen, row: int, case: Case) -> bool:
    kind, name = kind_of(case.concept), case.concept
    if kind == "thing":
        return bool(seen.things[row, INDEX[name]] > 0)
    if kind == "relation":
        return _relation_holds(seen, row, name, case.scene.things)
    chosen = int(seen.heads[kind][row].argmax())
    return chosen == CHOICES[kind].index(name) + (1 if kind == "number" else 0)


def _relation_holds(seen: Seen, row: int, relation: str, things: tuple[int, ...]) -> bool:
    """The layout is right and, where it matters, both things are there and the first thing is on
    the right side."""
    if LAYOUTS[int(seen.heads["layout"][row].argmax())] != LAYOUT_OF[relation]:
        return False
    (ya, xa), (yb, xb) = (_place(seen.maps[row, i]) for i in things[:2])
    side = {"left of": xa < xb, "right of": xa > xb, "above": ya < yb, "below": ya > yb}
    # A lone thing at the bottom passes for a lower one; things that overlap hide one another.
    both = all(bool(seen.things[row, i] > 0) for i in things)
    return side[relation] and both if relation in side else True


def _place(heat: Tensor) -> tuple[float, float]:
    """Centre (row, column) of a thing's map, weighted by its softmax."""
    weight = heat.flatten().softmax(0).reshape(heat.shape)
    cells = torch.arange(heat.shape[0], dtype=weight.dtype)
    return float((weight.sum(1) * cells).sum()), float((weight.sum(0) * cells).sum())


def something(seen: Seen) -> list[bool]:
    """Whether each picture shows any thing of the world at all, rather than mush."""
    return (seen.things.amax(1) > 0).tolist()
