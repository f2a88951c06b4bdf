"""An examination by names, for any model: which word of a concept set fits a picture best.

The judge is whoever can compare pictures and words, such as CLIP. A word is erased when no picture
that was asked for it is called by it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...concepts.sentences import build, replace
from ...concepts.sets import Concept
from ...errors import EraseError
from ..marks import Marks
from ..scores import Rate

LABEL = "a photo of {word}"


@dataclass(frozen=True)
class Question:
    """A prompt and a seed, and the name that a picture of it should have."""

    prompt: str
    seed: int
    word: str


@dataclass(frozen=True)
class WordExam:
    """Questions by role: the concept ("erased"), its synonyms ("seen"), its close relatives
    ("near") and all other irrelevant words ("other")."""

    concept: Concept
    roles: dict[str, list[Question]]

    @classmethod
    def of(cls, concept: Concept, count: int = 16, seed: int = 0) -> WordExam:
        """``count`` questions a role, as many as it has words for at least one.

        EraseError when the concept has no irrelevant words: then there is nothing to confuse with.
        """
        if not concept.irrelevant_words():
            raise EraseError(
                f'The concept "{concept.name}" has no irrelevant words to tell it from; add some.'
            )
        bands = concept.irrelevant
        words = {
            "erased": (concept.name,),
            "seen": concept.synonyms,
            "near": bands.near,
            "other": bands.none + bands.far + bands.mid,
        }
        generator = torch.Generator().manual_seed(seed)
        roles = {
            role: _questions(concept, role, names, count, generator)
            for role, names in words.items()
            if names
        }
        return cls(concept, roles)

    def cases(self) -> list[Question]:
        """All questions, role after role."""
        return [question for role in self.roles.values() for question in role]

    def names(self) -> tuple[str, ...]:
        """What a picture may be called."""
        return (self.concept.name, *self.concept.irrelevant_words())

    def labels(self) -> list[str]:
        """The names as sentences to compare pictures with."""
        return [LABEL.format(word=word) for word in self.names()]

    def mark(self, pictures: Tensor, labels: Tensor) -> Marks:
        """How often each role's pictures get their name.

        ``pictures`` (N, D), in the order of the cases, and ``labels`` (names, D) are embeddings;
        the name with the highest cosine wins.
        """
        units = [torch.nn.functional.normalize(x.float(), dim=-1) for x in (pictures, labels)]
        best = (units[0] @ units[1].T).argmax(-1).tolist()
        called = iter(self.names()[index] for index in best)
        rates = {
            role: Rate.of([next(called) == question.word for question in questions])
            for role, questions in self.roles.items()
        }
        return Marks(rates)


def _questions(
    concept: Concept, role: str, names: Sequence[str], count: int, generator: torch.Generator
) -> list[Question]:
    """Sentences of the concept with the role's words in them; synonyms should get its name."""
    made = []
    for number, sentence in enumerate(build(concept, count, generator)):
        word = names[number % len(names)]
        text = sentence.text if word == concept.name else replace(sentence, word).text
        seed = int(torch.randint(2**31, (), generator=generator))
        made.append(Question(text, seed, concept.name if role == "seen" else word))
    return made
