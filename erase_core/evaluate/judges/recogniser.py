"""The examination of an eraser on MiniFlux: what went, what stayed, in numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...miniatures.miniflux.concepts import concept as concept_of
from ...miniatures.miniflux.concepts import held_out_synonyms
from ...miniatures.miniflux.judge import (
    CHOICES,
    Case,
    asked_for,
    cases,
    companion_cases,
    judge,
    kind_of,
    near,
    others,
    recognise,
    something,
    synonym_cases,
)
from ...miniatures.miniflux.recogniser import Recogniser
from ...miniatures.miniflux.world import CONVERSE
from ...models.base import Bundle
from ...models.flux1.forward import Lora
from ..marks import Marks
from ..scores import Rate


@dataclass(frozen=True)
class Exam:
    """Questions by role: the concept ("erased"), its "held_out" and "seen" synonyms (a relation's
    converse is held out), "near" and "other" concepts in pictures without it, and what stands
    beside the concept in its own pictures ("companion")."""

    concept: str
    roles: dict[str, list[Case]]

    @classmethod
    def of(cls, concept: str, count: int = 64, seed: int = 0) -> Exam:
        """About 5 x ``count`` questions in wordings that no training ever saw."""
        rest = [name for name in others(concept) if name not in near(concept)]
        roles = {
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
        return cls(concept, roles)

    @classmethod
    def together(cls, names: Sequence[str], count: int, seed: int = 0) -> Exam:
        """The same for things that were erased by one eraser: ``count`` questions a role, "near"
        and "other" asking for what is left in pictures without them."""
        left = [name for name in CHOICES["thing"] if name not in names]
        kin = [name for name in left if any(name in near(erased) for erased in names)]
        rest = [name for name in left if name not in kin]
        words = [(name, [word]) for name in names for word in held_out_synonyms(name)]
        roles = {
            "erased": cases(names, count, seed),
            "near": _without(names, cases(kin, count // 2, seed + 1)),
            "other": _without(names, cases(rest, 2 * count, seed + 2)),
            "held_out": [
                synonym_cases(*words[i % len(words)], 1, seed + 4 + i)[0] for i in range(count)
            ],
        }
        return cls(" + ".join(names), roles)

    def cases(self) -> list[Case]:
        """All questions, role after role."""
        return [case for role in self.roles.values() for case in role]

    def draw(
        self,
        bundle: Bundle,
        lora: Lora | None = None,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> Tensor:
        """A picture for every case, (N, 128, 128, 3) uint8."""
        asked = self.cases()
        return bundle.generate(
            [case.prompt for case in asked],
            [case.seed for case in asked],
            lora=lora,
            on_batch=on_batch,
        )

    def sit(
        self,
        bundle: Bundle,
        recogniser: Recogniser,
        lora: Lora | None = None,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> Marks:
        """Draw every case and judge it."""
        return self.mark(self.draw(bundle, lora, on_batch=on_batch), recogniser)

    def mark(self, pictures: Tensor, recogniser: Recogniser) -> Marks:
        """Judge pictures (N, 128, 128, 3) uint8 of all cases, in their order."""
        seen = recognise(recogniser, pictures)
        hits, anything = iter(judge(seen, self.cases())), iter(something(seen))
        rates = {name: Rate.of([next(hits) for _ in role]) for name, role in self.roles.items()}
        recognised = {
            name: Rate.of([next(anything) for _ in role]) for name, role in self.roles.items()
        }
        return Marks(rates, recognised["erased"])


def _without(names: Sequence[str], asked: list[Case]) -> list[Case]:
    """The cases whose scenes show none of what is erased: what cannot be harmed for its sake."""
    erased = {*names, *(CONVERSE.get(name) for name in names)}
    return [case for case in asked if not erased & set(asked_for(case.scene))]
