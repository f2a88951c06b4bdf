"""The exam by names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.errors import EraseError
from erase_core.evaluate.judges.clip import ZeroShot
from erase_core.evaluate.judges.words import WordExam, WordJudge

TIGER = Concept(
    "tiger",
    synonyms=("big cat",),
    irrelevant=Bands(none=("car",), far=("rose",), mid=("dog",), near=("lion",)),
)


def test_every_role_asks_for_its_own_words() -> None:
    exam = WordExam.of(TIGER, 6, seed=1)
    assert {role: len(questions) for role, questions in exam.roles.items()} == {
        "erased": 6,
        "seen": 6,
        "near": 6,
        "other": 6,
    }
    assert all("tiger" in q.prompt and q.word == "tiger" for q in exam.roles["erased"])
    assert all("big cat" in q.prompt and q.word == "tiger" for q in exam.roles["seen"])
    assert all("lion" in q.prompt and "tiger" not in q.prompt for q in exam.roles["near"])
    assert {q.word for q in exam.roles["other"]} == {"car", "rose", "dog"}
    assert exam == WordExam.of(TIGER, 6, seed=1) != WordExam.of(TIGER, 6, seed=2)


class Space:
    """Pictures whose first pixels say which text they are nearest to."""

    def __init__(self, texts: int) -> None:
        self.size = texts

    def pictures(self, pictures: Tensor) -> Tensor:
        return 3.0 * torch.eye(self.size)[pictures[:, 0, 0, 0].long()]

    def texts(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(self.size)


def test_pictures_get_the_nearest_name() -> None:
    exam = WordExam.of(TIGER, 4)
    judge = WordJudge(ZeroShot(Space(len(exam.names))))
    assert judge.exam(ConceptSet((TIGER,)), 4) == exam
    seen = torch.zeros(16, 2, 2, 3, dtype=torch.uint8)
    seen[:, 0, 0, 0] = torch.tensor([exam.names.index(q.word) for q in exam.questions()])
    found = judge.mark(exam, seen)
    assert {r: x.value for r, x in found.rates.items()} == dict.fromkeys(exam.roles, 1.0)
    seen[:3, 0, 0, 0] = exam.names.index("lion")  # three of the four tigers look like lions
    assert judge.mark(exam, seen).rates["erased"].hits == 1


def test_a_concept_without_other_words_cannot_be_examined() -> None:
    with pytest.raises(EraseError, match="no irrelevant words"):
        WordExam.of(Concept("tiger"))
