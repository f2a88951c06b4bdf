"""CLIP as a judge, for any model: which word of a concept set fits a picture best.

A word is erased when no picture that was asked for it is called by it any more. The embeddings may
also come from elsewhere, such as a host's CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...concepts.sentences import build, replace
from ...concepts.sets import Concept
from ...errors import EraseError
from ...training.prompts import orders
from ..marks import Marks, Role
from ..scores import Rate

LABEL = "a photo of {word}"
BATCH = 16  # pictures that CLIP looks at at once


@dataclass(frozen=True)
class WordQuestion:
    """A prompt and a seed, and the name that a picture of it should have."""

    prompt: str
    seed: int
    word: str


@dataclass(frozen=True)
class WordExam:
    """Questions by role: the concept ("erased"), its synonyms ("seen"), its close relatives
    ("near") and all other irrelevant words ("other")."""

    concept: Concept
    roles: dict[Role, list[WordQuestion]]

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
        words: dict[Role, tuple[str, ...]] = {
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

    def questions(self) -> list[WordQuestion]:
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
        units = [F.normalize(x.float(), dim=-1) for x in (pictures, labels)]
        best = (units[0] @ units[1].T).argmax(-1).tolist()
        called = iter(self.names()[index] for index in best)
        rates = {
            role: Rate.of([next(called) == question.word for question in questions])
            for role, questions in self.roles.items()
        }
        return Marks(rates)


def _questions(
    concept: Concept, role: Role, names: Sequence[str], count: int, generator: torch.Generator
) -> list[WordQuestion]:
    """Sentences of the concept with the role's words in them; synonyms should get its name."""
    made = []
    for number, sentence in enumerate(build(concept, count, orders(generator))):
        word = names[number % len(names)]
        text = sentence.text if word == concept.name else replace(sentence, word).text
        seed = int(torch.randint(2**31, (), generator=generator))
        made.append(WordQuestion(text, seed, concept.name if role == "seen" else word))
    return made


class Clip:
    """A CLIP model from a local folder: how well pictures fit their prompts, and their features."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        try:
            self.model: Any = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the parsers of damaged files raise nearly everything
            raise EraseError(
                f"There is no CLIP model in {folder}; name a folder with config.json, weights, "
                "tokenizer and preprocessor_config.json."
            ) from error

    @torch.no_grad()
    def pictures(self, pictures: Tensor) -> Tensor:
        """Unit features (N, D) of pictures (N, H, W, 3) uint8."""
        parts = []
        for part in pictures.split(BATCH):
            pixels = self.processor(list(part.numpy()), return_tensors="pt").pixel_values
            parts.append(_embedding(self.model.get_image_features(pixel_values=pixels)))
        return F.normalize(torch.cat(parts).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (N, D) of texts, cut at the model's length."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        found = self.model.get_text_features(tokens.input_ids, tokens.attention_mask)
        return F.normalize(_embedding(found).float(), dim=-1)


def _embedding(found: Any) -> Tensor:
    """Features as a tensor, whichever way this version of transformers returns them."""
    return found if isinstance(found, Tensor) else found.pooler_output


def clip_score(pictures: Tensor, texts: Tensor) -> float:
    """``100 mean max(cos, 0)`` of unit features (N, D) (Hessel et al., EMNLP 2021, times 100)."""
    return 100 * float((pictures * texts).sum(-1).clamp(min=0).mean())
