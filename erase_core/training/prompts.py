"""Which prompts a run uses: planned once from the concept set, encoded once, looked up after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..concepts.sentences import Order, Sentence, build, replace, shuffle, sides, without
from ..concepts.sets import Concept, ConceptSet, named_in
from ..concepts.spans import Words, word_spans
from ..errors import EraseError
from ..models.base import Conditioning, TextEncoder

EMPTY_SHARE = 8  # one keep prompt in this many is the empty one
CHUNK = 32  # prompts encoded at a time
NullPrompt = Literal["auto", "empty", "without", "replace"]


def orders(generator: torch.Generator) -> Order:
    """Random orders as sentences want them."""
    return lambda count: torch.randperm(count, generator=generator).tolist()


@dataclass(frozen=True)
class Wanted:
    """Which prompts a run asks for.

    Attributes
    ----------
    erase, keep
        Sentences with a concept, and with irrelevant words in its place (0: none).
    contrast
        Irrelevant words that are set against a concept in each sentence, and a synonym with them
        (0: neither).
    null, anchor
        What stands for "nothing": the empty prompt, the sentence without the concept, or with
        ``anchor`` in its place (empty: the first irrelevant word, "mid" before "near"). "auto" is
        "empty" for entities, "without" for all other kinds.
    shuffle
        Probability that the phrases of a sentence are shuffled.
    """

    erase: int
    keep: int = 0
    contrast: int = 0
    null: NullPrompt = "auto"
    anchor: str = ""
    shuffle: float = 0.2


class Placed(NamedTuple):
    """A prompt and the word in it that is looked at."""

    text: str
    word: str


class ErasePrompt(NamedTuple):
    """One sentence of a concept and what may stand in its place.

    ``sentence`` holds the concept's name or a synonym; ``null`` is Eq. 2's null prompt; ``synonym``
    (None if there is none) and ``irrelevant`` are the sentence with the words of Eq. 5.
    """

    concept: int
    sentence: Placed
    null: str
    synonym: Placed | None
    irrelevant: tuple[Placed, ...]

    def placed(self) -> list[Placed]:
        """All the prompts whose words are looked at."""
        return [self.sentence, *([self.synonym] if self.synonym else []), *self.irrelevant]


class PromptPlan(NamedTuple):
    """All prompts of a run: rollout r of the erase set has prompt ``erase[r]``, and so for keep."""

    erase: tuple[ErasePrompt, ...]
    keep: tuple[str, ...]

    def rows(self, concept: int) -> Tensor:
        """Indices of a concept's erase prompts, long."""
        return torch.tensor([i for i, p in enumerate(self.erase) if p.concept == concept])

    def texts(self) -> list[str]:
        """Every different prompt."""
        placed = [placed.text for prompt in self.erase for placed in prompt.placed()]
        nulls = [prompt.null for prompt in self.erase]
        return list(dict.fromkeys([*placed, *nulls, *self.keep]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"erase": [list(prompt) for prompt in self.erase], "keep": list(self.keep)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PromptPlan:
        """The inverse of :meth:`to_json`."""
        erase = [
            ErasePrompt(
                concept,
                Placed(*sentence),
                null,
                Placed(*synonym) if synonym else None,
                tuple(Placed(*other) for other in irrelevant),
            )
            for concept, sentence, null, synonym, irrelevant in value["erase"]
        ]
        return cls(tuple(erase), tuple(value["keep"]))


def plan_prompts(
    concepts: ConceptSet,
    wanted: Wanted,
    generator: torch.Generator,
    keep: tuple[str, ...] | None = None,
) -> PromptPlan:
    """Write the prompts of a run: the rollouts shared out evenly among the concepts.

    ``keep`` are the prompts of the user's pictures, if these stand for the irrelevant set.

    Raises
    ------
    EraseError
        When a concept lacks the irrelevant words that the settings need, or the anchor names what
        is to be erased, or replaces nothing.
    """
    everything = concepts.concepts
    for concept in everything:
        _check_words(concept, wanted, keep is None)
    if wanted.anchor and all(null_kind(c, wanted.null) != "replace" for c in everything):
        raise EraseError(
            f'The anchor "{wanted.anchor}" would replace nothing; set null to replace, or leave '
            "anchor out."
        )
    if named := named_in(wanted.anchor, Words(concepts.names())):
        raise EraseError(
            f'The anchor "{wanted.anchor}" names "{named}", which is to be erased; '
            "choose another word."
        )
    erase: list[ErasePrompt] = []
    for index, count in enumerate(_shares(wanted.erase, len(everything))):
        erase += _erase_prompts(index, everything[index], count, wanted, generator)
    if keep is None:
        keep = _keep_prompts(everything, wanted, generator) if wanted.keep else ()
    return PromptPlan(tuple(erase), keep)


def _check_words(concept: Concept, wanted: Wanted, rolled: bool) -> None:
    replaced = null_kind(concept, wanted.null) == "replace" and not wanted.anchor
    needed = (wanted.keep and rolled) or wanted.contrast or replaced
    if needed and not concept.irrelevant_words():
        raise EraseError(
            f'The concept "{concept.name}" has no irrelevant words, and what must stay is learned '
            "from them; add some, or set l_lora and l_rsc to 0 and null to another than replace."
        )


def _shares(total: int, parts: int) -> list[int]:
    """``total`` rollouts (at least one each) as evenly as possible."""
    return [max(1, (total + parts - 1 - part) // parts) for part in range(parts)]


def _sentences(
    concept: Concept, count: int, wanted: Wanted, generator: torch.Generator
) -> list[Sentence]:
    """Sentences with the concept's name, some of them with their phrases shuffled."""
    order = orders(generator)
    sentences = build(concept, count, order)
    chances = torch.rand(count, generator=generator)
    return [
        shuffle(sentence, order) if chance < wanted.shuffle else sentence
        for sentence, chance in zip(sentences, chances, strict=True)
    ]


def _erase_prompts(
    index: int, concept: Concept, count: int, wanted: Wanted, generator: torch.Generator
) -> Iterator[ErasePrompt]:
    """Sentences of a concept, every other one with a synonym for the name."""
    others, null = _irrelevant(concept, generator), null_kind(concept, wanted.null)
    anchor = wanted.anchor or concept.anchor
    for number, sentence in enumerate(_sentences(concept, count, wanted, generator)):
        words = list(concept.erased())
        at = 1 + number // 2 % len(concept.synonyms) if number % 2 and concept.synonyms else 0
        word = words.pop(at)
        synonym = words[number // 2 % len(words)] if words and wanted.contrast else None
        swapped = islice(others, wanted.contrast)
        yield ErasePrompt(
            index,
            _put(sentence, word),
            _null_text(_about(sentence, word), null, anchor),
            _put(sentence, synonym) if synonym else None,
            tuple(_put(sentence, other) for other in swapped),
        )


def null_kind(concept: Concept, null: NullPrompt) -> str:
    """What stands for nothing for a concept: ``"empty"``, ``"without"`` or ``"replace"``."""
    if null != "auto":
        return null
    return "empty" if concept.kind == "entity" else "without"


def _null_text(sentence: Sentence, kind: str, anchor: str) -> str:
    if kind == "without":
        return without(sentence)
    return replace(sentence, anchor).text if kind == "replace" else ""


def _keep_prompts(
    concepts: Sequence[Concept], wanted: Wanted, generator: torch.Generator
) -> tuple[str, ...]:
    """Sentences of all concepts with irrelevant words in them, the sides of relationships alone,
    and the empty prompt now and then.

    A sentence that still names something to be erased is left out: it would be taught again.
    """
    erased = [word for concept in concepts for word in concept.erased()]
    prompts: list[str] = []
    for index, count in enumerate(_shares(wanted.keep, len(concepts))):
        words = _irrelevant(concepts[index], generator)
        sentences = _sentences(concepts[index], count, wanted, generator)
        texts = [
            _kept(sentence, word, number)
            for number, (sentence, word) in enumerate(zip(sentences, words, strict=False))
        ]
        clean = [t for t in texts if not any(word_spans(t, word) for word in erased)]
        prompts += (clean * count)[:count]
    if not prompts:
        raise EraseError(
            "Every sentence with an irrelevant word still names something to be erased; "
            "give sentences with one concept each."
        )
    return tuple("" if i % EMPTY_SHARE == EMPTY_SHARE - 1 else t for i, t in enumerate(prompts))


def _kept(sentence: Sentence, word: str, number: int) -> str:
    """The sentence with an irrelevant word. Every other one of a relationship is one of its sides
    alone: what stands in the relation would else be kept in other relations only."""
    parts = sides(sentence) if number % 2 and sentence.kind == "relationship" else ()
    return parts[number // 2 % len(parts)] if parts else replace(sentence, word).text


def _irrelevant(concept: Concept, generator: torch.Generator) -> Iterator[str]:
    """Irrelevant words without end: the bands take turns, each in random order over and over."""
    bands = concept.irrelevant
    filled = [b for b in (bands.none, bands.far, bands.mid, bands.near) if b]
    turns = [_endless(band, generator) for band in filled]
    while turns:
        for turn in torch.randperm(len(turns), generator=generator).tolist():
            yield next(turns[turn])


def _endless(words: tuple[str, ...], generator: torch.Generator) -> Iterator[str]:
    while True:
        for index in torch.randperm(len(words), generator=generator).tolist():
            yield words[index]


def _about(sentence: Sentence, word: str) -> Sentence:
    return sentence if word == sentence.word else replace(sentence, word)


def _put(sentence: Sentence, word: str) -> Placed:
    changed = _about(sentence, word)
    return Placed(changed.text, changed.word)


class RowPrompts(NamedTuple):
    """Encoded prompts of some rollouts, a row each: their own, Eq. 2's null, and what Eq. 5 sets
    against them: the synonym and K irrelevant words in their place, with token masks (B, 1, L)."""

    cond: Conditioning
    null: Conditioning | None = None
    contrast: tuple[tuple[Conditioning, Tensor], ...] = ()


class EncodedPrompts:
    """Every prompt of a plan encoded once, on the CPU, and the token masks of its words.

    ``on_chunk`` is called after every CHUNK prompts. Rows count the plan's prompts.
    """

    def __init__(
        self, plan: PromptPlan, text: TextEncoder, on_chunk: Callable[[], None] = lambda: None
    ) -> None:
        self.plan = plan
        texts = plan.texts()
        self._rows = {prompt: row for row, prompt in enumerate(texts)}
        parts = []
        for start in range(0, len(texts), CHUNK):
            parts.append(text.encode(texts[start : start + CHUNK]).to("cpu"))
            on_chunk()
        self._cond = Conditioning.cat(parts)
        words = {placed for prompt in plan.erase for placed in prompt.placed()}
        masks = {p: text.token_mask(p.text, p.word).float().cpu() for p in words}
        self._masks = {placed: mask[: self.length] for placed, mask in masks.items()}

    @property
    def length(self) -> int:
        """Tokens of every prompt, the padding among them."""
        return self._cond.context.shape[1]

    def concept(self, rows: Tensor) -> tuple[Conditioning, Tensor]:
        """Erase prompts, and the token masks (B, 1, L) of the concept in them."""
        return self._look_up([self.plan.erase[row].sentence for row in rows.tolist()])

    def erase(self, rows: Tensor) -> RowPrompts:
        """All that is needed of erase prompts.

        A concept without synonyms gets itself as one, to fill the place; see :meth:`has_synonyms`.
        """
        prompts = [self.plan.erase[row] for row in rows.tolist()]
        contrast = [
            [prompt.synonym or prompt.sentence, *prompt.irrelevant]
            for prompt in prompts
            if prompt.irrelevant
        ]
        return RowPrompts(
            self.concept(rows)[0],
            self.encoded([prompt.null for prompt in prompts]),
            tuple(self._look_up(words) for words in zip(*contrast, strict=True)),
        )

    def has_synonyms(self, rows: Tensor) -> bool:
        """Whether each of these erase prompts has a synonym."""
        return all(self.plan.erase[row].synonym for row in rows.tolist())

    def keep(self, rows: Tensor) -> RowPrompts:
        """Keep prompts."""
        return RowPrompts(self.encoded([self.plan.keep[row] for row in rows.tolist()]))

    def encoded(self, texts: Sequence[str]) -> Conditioning:
        """Prompts of the plan, a row each."""
        return self._cond.select([self._rows[text] for text in texts])

    def _look_up(self, words: Sequence[Placed]) -> tuple[Conditioning, Tensor]:
        masks = torch.stack([self._masks[placed] for placed in words])
        return self.encoded([placed.text for placed in words]), masks[:, None]
