"""What closed forms share: what the text's Linears read of a task's prompts, and one edit of them.

They need the text encoders and a few of the transformer's matrices, never a pass through it. They
solve on the CPU in float64, wherever the model computes: the same file from every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..concepts.sentences import build, sides
from ..concepts.sentences import replace as put
from ..concepts.sets import Bands, ConceptSet
from ..concepts.spans import word_spans
from ..erasers.base import Eraser
from ..erasers.edit import WeightEdit
from ..erasers.shrink import as_lora
from ..models.base import Model, parts
from ..models.frozen import FrozenLinear
from ..settings import Settings, setting
from ..training.encoding import Encoder, State
from ..training.progress import Progress
from ..training.prompts import ErasePrompt, Placed, Wanted, orders, plan_prompts
from ..training.result import Result
from .base import Task

ROLES = ("text_in", "pooled_in")  # where text enters: its tokens, and its pooled vector
TOGETHER = 480  # sentences of several concepts, all of them counted
KEPT_PROMPTS, KEPT_ROWS, CONTEXT_ROWS = 1000, 4096, 1024  # at most


@dataclass(frozen=True)
class ClosedSettings(Settings):
    """How many prompts a closed form reads, and what its file holds."""

    prompts: int = setting(48, "sentences with each concept", low=1, high=10_000)
    kept: int = setting(4, "sentences with each word that stays", low=1, high=1000)
    rank: int = setting(0, "rank of a LoRA instead of the edit; 0: the edit", low=0, high=4096)


@dataclass(frozen=True)
class AnchoredSettings(ClosedSettings):
    """Of forms that send a concept to an anchor. T5 reads both ways, so that every token of a
    sentence speaks of the concept. Where its words alone go, many pictures show neither of the two.
    """

    context: float = setting(
        1.0, "weight of a sentence's other tokens beside the concept's own", low=0, high=1e6
    )
    anchor: str = setting("", "what is drawn instead; empty: a relative among the words that stay")

    def aimed(self, task: Task) -> Task:
        """The task with this anchor, where one is named."""
        if not self.anchor:
            return task
        bands = Bands(mid=(self.anchor,))
        concepts = (replace(concept, irrelevant=bands) for concept in task.concepts.concepts)
        return replace(task, concepts=ConceptSet(tuple(concepts)))


S = TypeVar("S", bound=ClosedSettings)
Pair = tuple[Tensor, Tensor]  # rows (n, in), and what they are to be answered as


class Inputs(NamedTuple):
    """What a Linear reads: ``old`` (N, in) to be answered as ``new`` (N, in), ``kept`` (M, in), and
    ``empty`` (E, in) of the empty prompt; ``concept`` says whose the first old rows are, those
    of the concepts' own tokens."""

    old: Tensor
    new: Tensor
    kept: Tensor
    empty: Tensor = torch.zeros(0)
    concept: Tensor = torch.zeros(0)

    def double(self) -> Inputs:
        """All in float64, but for ``concept``."""
        old, new, kept, empty = (rows.double() for rows in self[:4])
        return Inputs(old, new, kept, empty, self.concept)


class Change(NamedTuple):
    """What is added to a Linear's weight (out, in) and, where one is, to its bias (out,)."""

    weight: Tensor
    bias: Tensor | None = None


def spared(settings: S, count: int) -> S:
    """Fewer sentences of each of ``count`` concepts, TOGETHER of all."""
    return replace(settings, prompts=max(8, min(settings.prompts, TOGETHER // count)))


def edit(
    task: Task,
    settings: ClosedSettings,
    solve: Callable[[Tensor, Inputs], Change | Tensor],
    roles: Sequence[str] = ROLES,
) -> Result:
    """Change the first Linear of each role by what ``solve`` makes of its weight (out, in) and of
    what it reads; all in float64 in main memory."""
    began = time.monotonic()
    inputs = read(task, settings, roles)
    encoded = time.monotonic()
    changes, done = {}, task.steps(len(inputs))
    for count, (module, rows) in enumerate(inputs.items(), 1):
        found = solve(weight_of(task.model, module).cpu().double(), rows.double())
        change = found if isinstance(found, Change) else Change(found)
        changes[module] = change if biased(task.model, module) else Change(change.weight)
        done(count)
    eraser, measured = finish(task, changes, settings.rank)
    seconds = {"text": encoded - began, "training": time.monotonic() - encoded}
    told = settings.to_dict() | {"seed": task.seed}
    return Result(eraser, told, seconds=seconds, measured=measured)


def finish(
    task: Task, changes: Mapping[str, Change], rank: int
) -> tuple[Eraser, Mapping[str, float]]:
    """The edit, or a LoRA of this rank that stands for it with what it misses."""
    weights = {name: change.weight for name, change in changes.items()}
    biases = {name: change.bias for name, change in changes.items() if change.bias is not None}
    whole = WeightEdit(weights, biases)
    if not rank:
        return whole.to(task.model.device), {}
    lora, missed = as_lora(whole, task.model.family.linears(task.model.config), rank)
    return lora.to(task.model.device), missed


def weight_of(model: Model, module: str) -> Tensor:
    """A Linear's weight (out, in) as it computes, in float32."""
    layer = model.tree.get_submodule(module)
    if isinstance(layer, FrozenLinear):
        return layer.used(torch.zeros(0, device=layer.weight.device))[0].detach()
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().float()


def bias_of(model: Model, module: str) -> Tensor | None:
    """A Linear's bias (out,) in float32, if it has one."""
    bias = getattr(model.tree.get_submodule(module), "bias", None)
    return None if bias is None else bias.detach().float()


def biased(model: Model, module: str) -> bool:
    """Whether a Linear has a bias; an edit cannot give it one."""
    return bias_of(model, module) is not None


def read(task: Task, settings: ClosedSettings, roles: Sequence[str] = ROLES) -> dict[str, Inputs]:
    """What the first Linear of each role reads, by its module, in main memory."""
    generator = torch.Generator().manual_seed(task.seed)
    count = settings.prompts * len(task.concepts.concepts)
    aimed = settings.aimed(task) if isinstance(settings, AnchoredSettings) else task
    prompts = plan_prompts(aimed.concepts, Wanted(count, null="replace"), generator).erase
    kept = kept_prompts(task, settings.kept, generator)
    states = encode(task, [*_texts(prompts), *kept, ""])
    found = {}
    for role in roles:
        if role == "text_in":
            context = settings.context if isinstance(settings, AnchoredSettings) else 0.0
            entered = _entering(task.model, states)
            found[first(task.model, role)] = _tokens(aimed, prompts, kept, entered, context)
        elif role in task.model.family.roles:
            found[first(task.model, role)] = _pooled(task, prompts, kept, states)
    return found


def encode(task: Task, texts: Sequence[str]) -> dict[str, State]:
    """The states of prompts; the task hears beforehand what they take, and then of every chunk."""
    encoder = Encoder(task.model.text, task.folders.states)
    task.on_encode(encoder.work(texts))
    began = time.monotonic()

    def on_chunk(done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        task.on_step(Progress("text", done, total, {}, left))

    return encoder.encode(texts, on_chunk)


def kept_prompts(task: Task, each: int, generator: torch.Generator) -> list[str]:
    """Up to ``each`` sentences with every word that stays, shared by all concepts; of a
    relationship as many of its sides alone. None names what is to be erased."""
    concepts = task.concepts.concepts
    erased = [word for concept in concepts for word in concept.erased()]
    words = {word for concept in concepts for word in concept.irrelevant_words()}
    each = max(1, min(each, KEPT_PROMPTS // max(1, len(words))))
    found: dict[str, list[str]] = {}
    for concept in concepts:
        for word in concept.irrelevant_words():
            if len(found.get(word, ())) >= each:
                continue
            sentences = build(concept, each, orders(generator))
            texts = [put(sentence, word).text for sentence in sentences]
            if concept.kind == "relationship":
                parts = (sides(sentence) for sentence in sentences)
                texts += [two[n % len(two)] for n, two in enumerate(parts) if two]
            clean = [t for t in texts if not any(word_spans(t, name) for name in erased)]
            found.setdefault(word, []).extend(clean)
    return [text for texts in found.values() for text in texts]


def _entering(model: Model, states: Mapping[str, State]) -> dict[str, State]:
    """The states as the Linear that reads them gets them."""
    enter = model.family.entering
    return {t: s._replace(tokens=enter(model.tree, s.tokens)) for t, s in states.items()}


def _texts(prompts: Sequence[ErasePrompt]) -> list[str]:
    return [text for prompt in prompts for text in (prompt.sentence.text, prompt.null)]


def first(model: Model, role: str) -> str:
    """The Linear of a role that reads first."""
    return model.modules([role])[0]


def _tokens(
    task: Task,
    prompts: Sequence[ErasePrompt],
    kept: Sequence[str],
    states: Mapping[str, State],
    context: float,
) -> Inputs:
    """The text's tokens: each of a concept goes to the mean of the anchor's in the same sentence,
    of the same encoder. What stands around it goes to what stands around the anchor."""
    words, around, owner = list[Pair](), list[Pair](), list[int]()
    for prompt in prompts:
        twin = Placed(prompt.null, task.concepts.concepts[prompt.concept].anchor)
        both = zip(*(_told(task, states, each) for each in (prompt.sentence, twin)), strict=True)
        for own, anchor in both:
            words.append((own.words, anchor.words.mean(0).expand_as(own.words)))
            owner += [prompt.concept] * len(own.words)
            if not context:
                continue
            around += [_from_start(own.before, anchor.before), _from_end(own.after, anchor.after)]
    old, new = _joined(words, around, context)
    owners = torch.tensor(owner)
    rows = thinned(torch.cat([states[text].tokens for text in kept]), KEPT_ROWS)
    return Inputs(old, new, rows, states[""].tokens, owners)


class _Told(NamedTuple):
    """A prompt's states of one encoder: those of a word in it, before it and after it."""

    words: Tensor
    before: Tensor
    after: Tensor


def _told(task: Task, states: Mapping[str, State], placed: Placed) -> list[_Told]:
    tokens = states[placed.text].tokens
    mask = task.model.text.token_mask(placed.text, placed.word).bool()[: len(tokens)]
    found = []
    for rows in parts(task.model.text):
        own, places = tokens[rows], mask[rows].nonzero().flatten()
        first, last = int(places[0]), int(places[-1])
        found.append(_Told(own[places], own[:first], own[last + 1 :]))
    return found


def _from_start(old: Tensor, new: Tensor) -> Pair:
    """The rows of both that stand at the same place."""
    count = min(len(old), len(new))
    return old[:count], new[:count]


def _from_end(old: Tensor, new: Tensor) -> Pair:
    """The rows of both that stand at the same distance from the last."""
    count = min(len(old), len(new))
    return old[len(old) - count :], new[len(new) - count :]


def _joined(words: Sequence[Pair], around: Sequence[Pair], context: float) -> Pair:
    """The pairs as two matrices, those ``around`` weighing ``context`` times as much as the words,
    all together. A row weighs as its square; the mean weight is 1."""
    old, new = (torch.cat(part) for part in zip(*words, strict=True))
    if not around:
        return old, new
    near, wanted = (thinned(torch.cat(p), CONTEXT_ROWS) for p in zip(*around, strict=True))
    if not len(near):
        return old, new
    share = (len(old) + len(near)) / (1 + context)
    own, other = (share / len(old)) ** 0.5, (share * context / len(near)) ** 0.5
    return torch.cat([own * old, other * near]), torch.cat([own * new, other * wanted])


def thinned(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows (N, D), evenly apart, so that every prompt has its share."""
    count = min(len(rows), most)
    return rows[torch.arange(count) * len(rows) // max(count, 1)]


def _pooled(
    task: Task, prompts: Sequence[ErasePrompt], kept: Sequence[str], states: Mapping[str, State]
) -> Inputs:
    """CLIP's pooled vectors: a sentence's goes to that of the same with the anchor."""
    texts = ([p.sentence.text for p in prompts], [p.null for p in prompts], kept, [""])
    pooled = [[states[text].pooled for text in part] for part in texts]
    old, new, stay, empty = (torch.stack([v for v in part if v is not None]) for part in pooled)
    return Inputs(old, new, stay, empty, torch.tensor([prompt.concept for prompt in prompts]))
