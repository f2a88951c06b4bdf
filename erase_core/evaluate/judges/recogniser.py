"""MiniFlux's own judge: questions about its world, and the recogniser that knows it.

Everything else that examines the miniature does so through this class.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...concepts.sets import Concept, ConceptSet
from ...errors import EraseError
from ...miniatures.miniflux import load_recogniser
from ...miniatures.miniflux.cases import (
    CHOICES,
    Case,
    asked_for,
    cases,
    companion_cases,
    kind_of,
    near,
    others,
    paraphrase,
    synonym_cases,
)
from ...miniatures.miniflux.concepts import concept as concept_of
from ...miniatures.miniflux.concepts import held_out_synonyms
from ...miniatures.miniflux.recogniser import Recogniser, Seen
from ...miniatures.miniflux.world import CONVERSE, INDEX, LAYOUT_OF, LAYOUTS
from ..exam import Exam
from ..marks import Marks, Role
from ..scores import Rate

BATCH = 100  # pictures looked at at once


class RecogniserJudge:
    """Knows MiniFlux's world; ``network`` is its recogniser."""

    label = "MiniFlux's recogniser"

    def __init__(self, network: Recogniser | None = None) -> None:
        self.network = network or load_recogniser()

    @staticmethod
    def concept(name: str) -> Concept:
        """A concept of the world with its words; EraseError if unknown."""
        return concept_of(name)

    def kind(self, name: str) -> str:
        """Which kind of thing in the world a concept is: thing, colour, style, number, relation."""
        return kind_of(name)

    def exam(self, concepts: ConceptSet, count: int = 64, seed: int = 0) -> Exam[Case]:
        """About 5 x ``count`` questions in wordings that no training ever saw.

        A relation's converse counts as its held-out synonym. Several concepts must be of one kind.
        """
        names = [concept.name for concept in concepts.concepts]
        return _alone(names[0], count, seed) if len(names) == 1 else _together(names, count, seed)

    def mark(self, exam: Exam[Case], pictures: Tensor) -> Marks:
        """Judge pictures (N, 128, 128, 3) uint8 of all questions, in their order."""
        seen = self.look(pictures)
        hits = iter([shows(seen, row, case) for row, case in enumerate(exam.questions())])
        anything = iter((seen.things.amax(1) > 0).tolist())
        rates = {role: Rate.of([next(hits) for _ in asked]) for role, asked in exam.roles.items()}
        alive = {
            role: Rate.of([next(anything) for _ in asked]) for role, asked in exam.roles.items()
        }
        return Marks(rates, alive["erased"])

    def cases(self, names: Sequence[str], count: int, seed: int) -> list[Case]:
        """``count`` questions going round the concepts, in wordings that no training ever saw."""
        return cases(names, count, seed)

    def others(self, name: str) -> list[str]:
        """Everything that must stay when a concept goes."""
        return others(name)

    def paraphrase(self, case: Case, rng: random.Random) -> str:
        """Another prompt for what a case asks for."""
        return paraphrase(case, rng)

    def shown(self, pictures: Tensor, asked: Sequence[Case]) -> list[bool]:
        """Whether each picture shows the concept that its case asks for."""
        seen = self.look(pictures)
        return [shows(seen, row, case) for row, case in enumerate(asked)]

    def agrees(self, pictures: Tensor, asked: Sequence[Case]) -> list[bool]:
        """Whether each picture shows everything that its case's scene asks for."""
        seen = self.look(pictures)
        return [
            all(shows(seen, row, replace(case, concept=name)) for name in asked_for(case.scene))
            for row, case in enumerate(asked)
        ]

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Seen:
        """What the recogniser sees in pictures (N, 128, 128, 3) uint8."""
        parts = [self.network(_unit(part)) for part in pictures.split(BATCH)]
        return Seen(
            torch.cat([p.maps for p in parts]),
            torch.cat([p.things for p in parts]),
            {name: torch.cat([p.heads[name] for p in parts]) for name in parts[0].heads},
        )

    @torch.no_grad()
    def features(self, parts: Iterable[Tensor]) -> Tensor:
        """The body's last activations averaged over space, (N, C), of pictures in parts."""
        return torch.cat([self.layers(part)[-1].mean((2, 3)) for part in parts])

    def layers(self, pictures: Tensor) -> list[Tensor]:
        """Activations of every layer of the body, each (N, C, h, w)."""
        x = _unit(pictures) * 2 - 1
        found = []
        for layer in self.network.body:
            x = layer(x)
            found.append(x)
        return found


def _unit(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in [0, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def _alone(concept: str, count: int, seed: int) -> Exam[Case]:
    """The questions about one concept of any kind."""
    rest = [name for name in others(concept) if name not in near(concept)]
    roles: dict[Role, list[Case]] = {
        "erased": cases([concept], count, seed),
        "near": _without([concept], cases(near(concept), count // 2, seed + 1)),
        "other": _without([concept], cases(rest, 2 * count, seed + 2)),
    }
    if kind_of(concept) != "number":
        roles["companion"] = companion_cases(concept, count, seed + 3)
    if kind_of(concept) == "thing":
        told = concept_of(concept).synonyms
        roles["held_out"] = synonym_cases(concept, held_out_synonyms(concept), count, seed + 4)
        roles["seen"] = synonym_cases(concept, told, count // 2, seed + 5)
    elif held_out_synonyms(concept):
        roles["held_out"] = cases(held_out_synonyms(concept), count, seed + 4)
    return Exam(concept, roles)


def _together(names: Sequence[str], count: int, seed: int) -> Exam[Case]:
    """The same for concepts of one kind that were erased by one eraser, ``count`` questions a role.
    "near" and "other" ask for what is left in pictures without them."""
    kin, rest = _left(names)
    roles: dict[Role, list[Case]] = {
        "erased": cases(names, count, seed),
        "near": _without(names, cases(kin, count // 2, seed + 1)),
        "other": _without(names, cases(rest, 2 * count, seed + 2)),
    }
    words = [(name, [word]) for name in names for word in held_out_synonyms(name)]
    if kind_of(names[0]) == "thing":
        roles["held_out"] = [
            synonym_cases(*words[i % len(words)], 1, seed + 4 + i)[0] for i in range(count)
        ]
    elif words:
        roles["held_out"] = cases([word for _, (word,) in words], count, seed + 4)
    return Exam(" + ".join(names), roles)


def _left(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What must stay when these go: their kin, and all else."""
    kind = kind_of(names[0])
    if any(kind_of(name) != kind for name in names):
        raise EraseError("Concepts of one kind are examined together; name things, or colours.")
    erased = _erased(names)
    left = [name for name in CHOICES[kind] if name not in erased]
    if kind != "thing":
        return left, list(CHOICES["thing"])
    kin = [name for name in left if any(name in near(gone) for gone in names)]
    return kin, [name for name in left if name not in kin]


def _erased(names: Sequence[str]) -> set[str | None]:
    """These, and the converses of relations."""
    return {*names, *(CONVERSE.get(name) for name in names)}


def _without(names: Sequence[str], asked: list[Case]) -> list[Case]:
    """The cases whose scenes show none of what is erased: what cannot be harmed for its sake."""
    return [case for case in asked if not _erased(names) & set(asked_for(case.scene))]


def shows(seen: Seen, row: int, case: Case) -> bool:
    """Whether the ``row``-th picture shows the concept that the case asks for."""
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
