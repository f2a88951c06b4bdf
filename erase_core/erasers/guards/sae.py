"""Sparse features of the prompt's states, those of a concept shut.

After Interpret then Deactivate (Tian et al. 2025, arXiv 2503.09446), whose autoencoder is sparse by
its k largest features, and the nested one of Bussmann et al. 2025 (arXiv 2503.17547). A state x,
centred on the mean m of all tokens and divided by their scale s, is a sum of few of F features:

    u = (x - m) / s,    z = the k largest of relu(E u + b),    u ~ sum_f z_f d_f,  |d_f| = 1

Nested: the first F/8, F/4, F/2 and all F features must each give u back,

    loss = mean over n in (F/8, F/4, F/2, F) of |u - sum_{f < n} z_f d_f|^2 / |u|^2

A feature is the concept's when prompts that name it make it fire and others hardly do,

    p_f / (p_f + q_f) > APART

In each prompt f fires most strongly at one token. ``p_f`` is the mean of that over prompts with the
concept, ``q_f`` over those with other words in its place. ``S`` are these features. In a
prompt that names the concept, as the word gate tells it, S is shut at every token:

    x' = x - DEPTH strength s sum_{f in S} z_f d_f

What the autoencoder does not explain stays in x', so that little else moves. It speaks of the
concept, too, so that DEPTH is more than 1.

Ours differs from the papers in these points:

- Features are learned on tokens of the prompts of one concept set, not on a large corpus: a
  minute on a CPU with MiniFlux's encoders. So a guard's file belongs to its concepts.
- ItD shuts its features in every prompt. Here prompts that do not name the concept stay bit for
  bit.
- The pooled vector, one a prompt, is too little to learn features from. It leaves the subspace of
  the names' pooled vectors, as SAFREE's does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...concepts.sentences import build
from ...concepts.sentences import replace as put
from ...concepts.sets import Concept, ConceptSet
from ...concepts.sources.lists import pool
from ...errors import EraseError
from ...models.base import Conditioning, Model
from ...settings import setting
from .base import Act, Guard, GuardMethod, GuardSettings
from .gate import FRAMES, kept_words, word_gate
from .safree import basis, inside_of

APART = 0.8  # least share of a feature that is a concept's
DEPTH = 2.0  # see docs/guards.md
SENTENCES, SWAPS = 48, 3  # of a concept, and words that take its place in each
TOKENS = 32  # of a prompt that are learned from
BATCH = 512  # tokens a step
CHUNK = 16  # prompts encoded at once

Encode = Callable[[Sequence[str]], Conditioning]


@dataclass(frozen=True)
class SaeSettings(GuardSettings):
    """How much is shut, and how features are learned."""

    features: int = setting(512, "features that are learned", low=8, high=65_536, step=8)
    active: int = setting(16, "features that make up a state", low=1, high=1024)
    steps: int = setting(400, "steps of learning", low=1, high=100_000)
    lr: float = setting(2e-3, "learning rate", low=0, high=1)
    seed: int = setting(0, "of what is drawn at random", low=0, high=2**31)


class Prompts:
    """Prompts that features are learned from.

    ``named`` are a concept's own, ``swapped`` these with other words in its place, in the order of
    the concepts; ``everyday`` name ordinary things.
    """

    def __init__(self, concepts: ConceptSet, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.named: list[list[str]] = []
        self.swapped: list[list[str]] = []
        for concept in concepts.concepts:
            words = kept_words(concept, concepts.names())
            named, swapped = _about(concept, words, random)
            self.named.append(named)
            self.swapped.append(swapped)
        kinds = dict.fromkeys(concept.kind for concept in concepts.concepts)
        erased = set(concepts.names())
        self.everyday = [w.name for kind in kinds for w in pool(kind) if w.name not in erased]

    def all(self) -> list[str]:
        """Each prompt once."""
        parts = [*self.named, *self.swapped, self.everyday]
        return list(dict.fromkeys(prompt for part in parts for prompt in part))


def _about(
    concept: Concept, words: Sequence[str], random: torch.Generator
) -> tuple[list[str], list[str]]:
    """Prompts with a concept's names, and with other words in their place."""

    def order(count: int) -> list[int]:
        return torch.randperm(count, generator=random).tolist()

    sentences = list(dict.fromkeys(build(concept, SENTENCES, order)))
    named = [frame + name for name in concept.names() for frame in FRAMES]
    swapped = [frame + word for word in words for frame in FRAMES]
    for index, sentence in enumerate(sentences):
        for turn, name in enumerate(concept.names()):
            if turn == 0 or index % len(concept.names()) == turn:
                named.append(put(sentence, name).text)
        swapped += [
            put(sentence, words[(SWAPS * index + turn) % len(words)]).text for turn in range(SWAPS)
        ]
    return named, swapped


class Features:
    """The features of one concept set; ``tensors`` are those of its file.

    ``mean`` (D,) and ``scale`` () of the states, ``encode`` and ``decode`` (F, D), ``bias`` (F,);
    for C concepts ``shut`` (C, F), 1 for a concept's own. Where there are pooled vectors,
    ``pooled.mean`` (P,) and ``pooled.basis`` (P, r) for each concept, whose number follows.
    """

    def __init__(self, tensors: Mapping[str, Tensor], active: int) -> None:
        self.tensors, self.active = dict(tensors), active

    def fire(self, context: Tensor) -> Tensor:
        """How strongly each feature fires at tokens (..., D): (..., F), all but ``active`` 0."""
        t = self._on(context)
        u = (context.float() - t["mean"]) / t["scale"]
        return sparse(F.linear(u, t["encode"], t["bias"]), self.active)

    def clean(
        self,
        context: Tensor,
        pooled: Tensor | None,
        named: Tensor,
        strength: float,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Prompts (B, T, D) and (B, P) with the features of the concepts shut that they name, which
        ``named`` (B, C) bool says. The others come back bit for bit, as do tokens that ``mask``
        (B, T) leaves out."""
        t, fired = self._on(context), self.fire(context)
        if mask is not None:
            fired = fired * mask[..., None]
        named = named.to(context.device)
        shut = (named.float() @ t["shut"]).clamp(max=1)
        off = DEPTH * t["scale"] * (fired * shut[:, None]) @ t["decode"]
        moved = (context.float() - strength * off).to(context)
        context = torch.where(off.any(-1, keepdim=True), moved, context)
        for index, row in enumerate(named.unbind(1)):
            if pooled is not None and f"pooled.mean.{index}" in t:
                part = inside_of(pooled, t[f"pooled.mean.{index}"], t[f"pooled.basis.{index}"])
                pooled = torch.where(row[:, None], pooled - strength * part, pooled)
        return context, pooled

    def _on(self, like: Tensor) -> dict[str, Tensor]:
        """The tensors where a prompt's states are."""
        return {name: tensor.to(like.device) for name, tensor in self.tensors.items()}


def sparse(found: Tensor, active: int) -> Tensor:
    """The ``active`` largest of (..., F) that are not negative, the others 0."""
    most = found.relu().topk(min(active, found.shape[-1]), dim=-1)
    return torch.zeros_like(found).scatter(-1, most.indices, most.values)


def nested(size: int) -> list[int]:
    """How many of the first features must each give a state back."""
    return sorted({max(1, size // part) for part in (8, 4, 2, 1)})


def loss(u: Tensor, z: Tensor, decode: Tensor) -> Tensor:
    """The loss above for states (N, D), their features (N, F) and ``decode`` (F, D)."""
    missed, guess, start = [], torch.zeros_like(u), 0
    for end in nested(len(decode)):
        guess = guess + z[:, start:end] @ decode[start:end]
        missed.append((u - guess).square().sum(1).mean() / u.square().sum(1).mean())
        start = end
    return torch.stack(missed).mean()


def fit(
    states: Tensor, settings: SaeSettings, on_step: Callable[[int], None] = lambda done: None
) -> dict[str, Tensor]:
    """Learn features of states (N, D): ``mean``, ``scale``, ``encode``, ``bias``, ``decode``.
    ``on_step`` hears how many steps are done; what it raises ends the learning."""
    with torch.inference_mode(False), torch.enable_grad():  # a host has its nodes run without
        return _fit(states.float().clone(), settings, on_step)


def _fit(
    states: Tensor, settings: SaeSettings, on_step: Callable[[int], None]
) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(settings.seed)
    mean = states.mean(0)
    scale = (states - mean).square().mean().sqrt().clamp_min(1e-6)
    u = (states - mean) / scale
    first = u[torch.randint(len(u), (settings.features,), generator=random)]
    noise = torch.randn(first.shape, generator=random).to(first)
    decode = F.normalize(first + 0.1 * noise, dim=1)
    encode, bias = decode.clone(), torch.zeros(settings.features).to(u)
    parameters = [p.requires_grad_() for p in (encode, bias, decode)]
    optimiser = torch.optim.Adam(parameters, lr=settings.lr)
    for step in range(settings.steps):
        part = u[torch.randint(len(u), (BATCH,), generator=random)]
        z = sparse(F.linear(part, encode, bias), settings.active)
        optimiser.zero_grad()
        loss(part, z, decode).backward()
        optimiser.step()
        with torch.no_grad():
            decode.copy_(F.normalize(decode, dim=1))
        on_step(step + 1)
    learned = {"encode": encode, "bias": bias, "decode": decode}
    return {"mean": mean, "scale": scale} | {name: p.detach() for name, p in learned.items()}


def choose(named: Tensor, swapped: Tensor) -> Tensor:
    """Which features are a concept's, (F,) bool. ``named`` (N, F) says how strongly each fires at
    most in prompts that name it, ``swapped`` (M, F) in those with other words in its place."""
    own, other = named.mean(0), swapped.mean(0)
    return (own > APART * (own + other)) & (own > 0)


def learn(
    encode: Encode,
    concepts: ConceptSet,
    settings: SaeSettings,
    on_step: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """The features of a concept set, from prompts as a text encoder gives them.

    EraseError when none speaks of a concept.
    """
    prompts = Prompts(concepts, settings.seed)
    learned = fit(_states(encode, prompts.all(), settings.seed), settings, on_step)
    features = Features(learned, settings.active)
    shut = []
    rows = zip(concepts.concepts, prompts.named, prompts.swapped, strict=True)
    for index, (concept, own, other) in enumerate(rows):
        chosen = choose(*(_most(encode, part, features) for part in (own, other))).float()
        if not chosen.any():
            raise EraseError(
                f'No feature speaks of "{concept.name}" alone; set more steps or more features.'
            )
        shut.append(chosen)
        learned |= _pooled(encode, concept, other, index)
    return learned | {"shut": torch.stack(shut)}


def _pooled(
    encode: Encode, concept: Concept, others: Sequence[str], index: int
) -> dict[str, Tensor]:
    """The subspace of the pooled vectors of a concept's names; nothing without any."""
    names = encode([frame + name for name in concept.names() for frame in FRAMES]).pooled
    if names is None:
        return {}
    kept = [part.pooled for part in _encoded(encode, others) if part.pooled is not None]
    middle = torch.cat(kept).float().mean(0)
    space = basis(names.float() - middle).contiguous()
    return {f"pooled.mean.{index}": middle, f"pooled.basis.{index}": space}


def _encoded(encode: Encode, prompts: Sequence[str]) -> Iterator[Conditioning]:
    """Prompts, a few at a time: those of a large encoder fill memory."""
    for start in range(0, len(prompts), CHUNK):
        yield encode(prompts[start : start + CHUNK])


def _states(encode: Encode, prompts: Sequence[str], seed: int) -> Tensor:
    """Some of the tokens of each prompt, (N, D)."""
    random = torch.Generator().manual_seed(seed)
    return torch.cat(
        [
            row[torch.randperm(len(row), generator=random)[:TOKENS]]
            for part in _encoded(encode, prompts)
            for row in part.rows()
        ]
    )


def _most(encode: Encode, prompts: Sequence[str], features: Features) -> Tensor:
    """How strongly each feature fires at most in each prompt, (N, F)."""
    rows = (row for part in _encoded(encode, prompts) for row in part.rows())
    return torch.stack([features.fire(row).amax(0) for row in rows])


def act(model: Model, guard: Guard) -> Act:
    """Prompts with the concepts' features shut."""
    settings: SaeSettings = guard.settings
    tensors = guard.tensors or learn(model.text.encode, guard.concepts, settings)
    features, gates = Features(tensors, settings.active), word_gate(model.text, guard.concepts)

    @lru_cache(maxsize=1)  # all steps of a batch have the same prompts
    def cleaned(cond: Conditioning) -> Conditioning:
        named = torch.stack([g.strength(cond.context, cond.mask) > 0 for g in gates], 1)
        context, pooled = features.clean(
            cond.context, cond.pooled, named, settings.strength, cond.mask
        )
        return replace(cond, context=context, pooled=pooled)

    return lambda model, call: call._replace(cond=cleaned(call.cond)).of(model)


GUARDS = (
    GuardMethod(
        "sae", "Sparse features", "after Tian et al. 2025, arXiv 2503.09446", SaeSettings, act,
        learn=lambda text, concepts, settings: learn(text.encode, concepts, settings),
    ),
)  # fmt: skip
