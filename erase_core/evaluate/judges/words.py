"""The words of a concept set as an exam of any model: whose pictures are called by which word.

A word is erased when no picture that was asked for it is called by it any more. Who calls it so is
a :class:`Classifier`: CLIP without training, a network with classes, or a vision language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ...concepts.sentences import build
from ...concepts.sentences import replace as put
from ...concepts.sets import BANDS, Bands, Concept, ConceptSet
from ...errors import EraseError
from ...training.prompts import orders
from ..exam import Exam
from ..marks import Marks, Role
from ..scores import Rate


@dataclass(frozen=True)
class WordQuestion:
    """A prompt and a seed, and the name that a picture of it should have."""

    prompt: str
    seed: int
    word: str


class Classifier(Protocol):
    """Says what pictures show. ``label`` names it in a report."""

    @property
    def label(self) -> str: ...

    def knows(self, word: str) -> bool:
        """Whether it has a class for the word."""
        ...

    def shown(self, pictures: Tensor, words: Sequence[str], names: Sequence[str]) -> Sequence[bool]:
        """Whether each of the pictures (N, H, W, 3) uint8 is called by its word; ``names`` are all
        that it may be called."""
        ...


@dataclass(frozen=True)
class WordExam(Exam[WordQuestion]):
    """Questions by role: the concept ("erased"), its synonyms ("seen"), its close relatives
    ("near") and all other irrelevant words ("other"). ``names``: what a picture may be called."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        concept: Concept,
        count: int = 16,
        seed: int = 0,
        known: Callable[[str], bool] = lambda word: True,
    ) -> WordExam:
        """``count`` questions a role, as many as it has words for at least one.

        Words to keep that are not ``known`` are left out. EraseError when the concept is not known,
        or has no irrelevant words: then there is nothing to confuse it with.
        """
        if not known(concept.name):
            raise EraseError(
                f'The judge has no class called "{concept.name}"; choose another judge.'
            )
        left = {n: tuple(filter(known, getattr(concept.irrelevant, n))) for n in BANDS}
        bands = Bands(**left)
        if not bands.words():
            raise EraseError(
                f'The concept "{concept.name}" has no irrelevant words to tell it from that the '
                "judge knows; add some."
            )
        words: dict[Role, tuple[str, ...]] = {
            "erased": (concept.name,),
            "seen": concept.synonyms,
            "near": bands.near,
            "other": bands.none + bands.far + bands.mid,
        }
        generator = torch.Generator().manual_seed(seed)
        asked = replace(concept, irrelevant=bands)
        roles = {
            role: _questions(asked, role, names, count, generator)
            for role, names in words.items()
            if names
        }
        return cls(concept.name, roles, (concept.name, *bands.words()))

    def marks(self, called: Iterable[bool]) -> Marks:
        """How often each role's pictures are called by their word, ``called`` picture by picture in
        the order of the questions."""
        answers = iter(called)
        rates = {
            role: Rate.of([next(answers) for _ in asked]) for role, asked in self.roles.items()
        }
        return Marks(rates)


class WordJudge:
    """A classifier as the judge of an exam of words."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @property
    def label(self) -> str:
        return self.classifier.label

    def exam(self, concepts: ConceptSet, count: int, seed: int = 0) -> WordExam:
        """The questions about one concept; EraseError for several, which are asked one by one."""
        first, *others = concepts.concepts
        if others:
            raise EraseError("Words are examined one by one; give each concept an exam of its own.")
        return WordExam.of(first, count, seed, self.classifier.knows)

    def mark(self, exam: Exam[WordQuestion], pictures: Tensor) -> Marks:
        """Judge pictures (N, H, W, 3) uint8 of all questions, in their order."""
        assert isinstance(exam, WordExam)
        words = [question.word for question in exam.questions()]
        return exam.marks(self.classifier.shown(pictures, words, exam.names))


def _questions(
    concept: Concept, role: Role, names: Sequence[str], count: int, generator: torch.Generator
) -> list[WordQuestion]:
    """Sentences of the concept with the role's words in them; synonyms should get its name."""
    made = []
    for number, sentence in enumerate(build(concept, count, orders(generator))):
        word = names[number % len(names)]
        text = sentence.text if word == concept.name else put(sentence, word).text
        seed = int(torch.randint(2**31, (), generator=generator))
        made.append(WordQuestion(text, seed, concept.name if role == "seen" else word))
    return made
