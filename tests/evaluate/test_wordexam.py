"""The exam by names."""

from __future__ import annotations

import pytest
import torch

from erase_core.concepts.sets import Bands, Concept
from erase_core.errors import EraseError
from erase_core.evaluate.judges.clip import WordExam

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


def test_pictures_get_the_nearest_name() -> None:
    exam = WordExam.of(TIGER, 4)
    labels = torch.eye(len(exam.names()))
    index = {name: row for row, name in enumerate(exam.names())}
    seen = torch.stack([3.0 * labels[index[q.word]] for q in exam.questions()])
    assert {r: x.value for r, x in exam.mark(seen, labels).rates.items()} == {
        "erased": 1.0,
        "seen": 1.0,
        "near": 1.0,
        "other": 1.0,
    }
    seen[:3] = labels[index["lion"]]  # three of the four tigers look like lions
    assert exam.mark(seen, labels).rates["erased"].hits == 1


def test_a_concept_without_other_words_cannot_be_examined() -> None:
    with pytest.raises(EraseError, match="no irrelevant words"):
        WordExam.of(Concept("tiger"))
