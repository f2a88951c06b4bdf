"""The examination of an eraser on MiniFlux: what went, what stayed, in numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..bundle import Bundle
from ..flux.forward import Lora
from ..metrics.marks import Marks
from ..metrics.recogniser import Recogniser
from ..metrics.scores import Rate
from ..miniflux.concepts import concept as concept_of
from ..miniflux.concepts import held_out_synonyms
from ..miniflux.judge import (
    Case,
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


@dataclass(frozen=True)
class Exam:
    """Questions by role: the concept ("erased"), its "held_out" and "seen" synonyms, "near" and
    "other" concepts, and what stands beside the concept in its own pictures ("companion")."""

    concept: str
    roles: dict[str, list[Case]]

    @classmethod
    def of(cls, concept: str, count: int = 64, seed: int = 0) -> Exam:
        """About 5 x ``count`` questions in wordings that no training ever saw."""
        rest = [name for name in others(concept) if name not in near(concept)]
        roles = {
            "erased": cases([concept], count, seed),
            "near": cases(near(concept), count // 2, seed + 1),
            "other": cases(rest, 2 * count, seed + 2),
        }
        if kind_of(concept) != "number":
            roles["companion"] = companion_cases(concept, count, seed + 3)
        if kind_of(concept) == "thing":
            told = concept_of(concept).synonyms
            roles["held_out"] = synonym_cases(concept, held_out_synonyms(concept), count, seed + 4)
            roles["seen"] = synonym_cases(concept, told, count // 2, seed + 5)
        return cls(concept, roles)

    def cases(self) -> list[Case]:
        """All questions, role after role."""
        return [case for role in self.roles.values() for case in role]

    def sit(
        self,
        bundle: Bundle,
        recogniser: Recogniser,
        lora: Lora | None = None,
        *,
        steps: int = 28,
        guidance: float = 3.5,
        on_batch: Callable[[int], None] | None = None,
    ) -> Marks:
        """Draw every case and judge it."""
        asked = self.cases()
        pictures = bundle.generate(
            [case.prompt for case in asked],
            [case.seed for case in asked],
            steps=steps,
            guidance=guidance,
            lora=lora,
            on_batch=on_batch,
        )
        return self.mark(pictures, recogniser)

    def mark(self, pictures: Tensor, recogniser: Recogniser) -> Marks:
        """Judge pictures (N, 128, 128, 3) uint8 of all cases, in their order."""
        seen = recognise(recogniser, pictures)
        hits, anything = iter(judge(seen, self.cases())), iter(something(seen))
        rates = {name: Rate.of([next(hits) for _ in role]) for name, role in self.roles.items()}
        recognised = {
            name: Rate.of([next(anything) for _ in role]) for name, role in self.roles.items()
        }
        return Marks(rates, recognised["erased"])
