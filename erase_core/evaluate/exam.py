"""An examination of an eraser, whoever judges it: questions by role, pictures, marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from ..concepts.sets import ConceptSet
from ..models.base import Adapter, Model
from .marks import Marks, Role


class Question(Protocol):
    """A prompt, and the seed of the picture that answers it."""

    @property
    def prompt(self) -> str: ...

    @property
    def seed(self) -> int: ...


Asked = TypeVar("Asked", bound=Question, covariant=True)  # the questions of one judge


@dataclass(frozen=True)
class Exam(Generic[Asked]):
    """Questions by role. They ask for the ``title`` concept ("erased"), its "held_out" and "seen"
    synonyms, "near" and "other" concepts, and companions from its own pictures.
    """

    title: str
    roles: Mapping[Role, Sequence[Asked]]

    def questions(self) -> list[Asked]:
        """All questions, role after role."""
        return [question for role in self.roles.values() for question in role]

    def draw(
        self,
        model: Model,
        eraser: Adapter | None = None,
        *,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        """A picture for every question, (N, H, W, 3) uint8."""
        asked = self.questions()
        prompts, seeds = [q.prompt for q in asked], [q.seed for q in asked]
        return model.generate(prompts, seeds, eraser, on_batch=on_batch)


Own = TypeVar("Own", bound=Question)


class Judge(Protocol[Own]):
    """Asks the questions, and says what the pictures show. ``label`` names it in a report."""

    @property
    def label(self) -> str: ...

    def exam(self, concepts: ConceptSet, count: int, seed: int = 0) -> Exam[Own]:
        """The questions about what was erased, about ``count`` a role."""
        ...

    def mark(self, exam: Exam[Own], pictures: Tensor) -> Marks:
        """Judge pictures (N, H, W, 3) uint8 of all questions, in their order."""
        ...
