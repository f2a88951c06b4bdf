"""Gates: an eraser whose strength the prompt decides, so that other prompts stay bit for bit.

Both give one strength in [0, 1] a row of the batch, and act on the forward side.

The *word gate* looks at text states. A name is the states of its tokens, centred on what ordinary
prompts have in common; a prompt holds the name as far as it holds each of them,

    score = max over names of mean over its tokens n of max over the prompt's tokens t of cos(n, t)
    way = (score - kept) / (1 - kept)

where ``kept`` is the highest score of prompts whose words must stay. So the encoder itself says how
near a synonym comes. The gate begins to open at LOW of the way and is open at HIGH.

It follows SPM's Facilitated Transport (Lyu et al. 2024, arXiv 2312.16145) in its idea alone. SPM's
code takes the larger of two numbers as strength. One is the cosine of the two prompts' states as a
whole, the other the share of the name's token ids that the prompt has. That is never 0, since any
two prompts are alike in most of T5's 256 states; it knows no synonym by its id, and no words that
must stay. So ours compares word by word, takes the common part off, and has a floor and a ramp.

LOW and HIGH come from MiniFlux's encoder (tools/bench/wordgate.py; docs/guards.md has the table).
They were chosen on every other of its sixty things. LOW is the next twentieth but one above all
1,193 prompts without the concept (at most 0.098). HIGH is the last twentieth below the first per
cent of the 1,200 that name it or a synonym (0.315). On the other thirty things 0 of 1,194 prompts
without the concept open it. 99.0 % of 1,200 with it and 98.5 % of 480 with a held-out synonym open
it wholly. Misspelt names open it in 2 % of prompts. Of the relations "above" is often missed, and
"kissing" opens for some others: such words mean little without their things.

The *velocity gate* looks at the first steps. With ``|v_e - v_b|`` the distance of the erased from
the base's velocity, for the prompt and for the concept's own name,

    share = |v_e(prompt) - v_b(prompt)| / |v_e(concept) - v_b(concept)|

averaged over the steps looked at, opens it between two settings. UnGuide (2508.05755), too, mixes
base and eraser by how their first steps part. It weighs both predictions in a guidance formula for
U-Nets, with limits learned from samples; ours has no such guidance, the concept's own change is
its measure, and ``mixed`` stays between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...concepts.sets import Concept, ConceptSet
from ...concepts.sources.lists import pool
from ...errors import EraseError
from ...models.base import Adapter, Conditioning, Model, TextEncoder
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, at, plain

LOW, HIGH = 0.15, 0.3  # of the way; see above
FRAMES = ("", "a photo of ", "a picture of ")  # a word comes last: the tokens before it stay
KEPT = 16  # words that must not open a gate, at least


class WordGate:
    """What a text encoder knows of a concept: its names' token states, and what is not one.

    ``names`` are states (n, D) of the tokens of each name; ``kept`` are whole prompts (T, D) that
    name something else.
    """

    def __init__(self, names: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
        self.mean = torch.cat(list(kept)).float().mean(0)
        self.names = [self._unit(name) for name in names]
        self.kept = max(float(self.score(prompt[None])) for prompt in kept)

    def score(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How far prompts (B, T, D) hold one of the names, (B,), at most 1; ``mask`` (B, T) says
        which of their tokens count, None for all."""
        tokens = self._unit(context).transpose(1, 2)
        found = []
        for name in self.names:
            near = name.to(tokens) @ tokens
            if mask is not None:
                near = near.masked_fill(~mask[:, None], -1.0)
            found.append(near.amax(2).mean(1))
        return torch.stack(found).amax(0)

    def way(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How far prompts (B, T, D) are on the way from the nearest that must stay, 0, to the name
        itself, 1: (B,)."""
        return (self.score(context, mask) - self.kept) / max(1 - self.kept, 1e-6)

    def strength(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How far the gate opens for prompts (B, T, D): (B,) in [0, 1]."""
        return ramp(self.way(context, mask), LOW, HIGH)

    def near(self, context: Tensor) -> Tensor:
        """Which tokens of prompts (B, T, D) come near enough to one of a name's to open the gate,
        (B, T) bool."""
        names = torch.cat(self.names).to(context.device)
        found = (self._unit(context) @ names.T).amax(2)
        return (found - self.kept) / max(1 - self.kept, 1e-6) > LOW

    def _unit(self, states: Tensor) -> Tensor:
        return F.normalize(states.float() - self.mean.to(states.device), dim=-1)


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on, straight between."""
    return ((x - low) / max(high - low, 1e-6)).clamp(0, 1)


def kept_words(concept: Concept, erased: Iterable[str]) -> list[str]:
    """Words that must not open a concept's gate: its own irrelevant ones, and everyday ones where
    these are few."""
    own, everyday = concept.irrelevant_words(), [word.name for word in pool(concept.kind)]
    more = everyday[:: len(everyday) // KEPT] if len(own) < KEPT else []
    named = set(erased) | set(concept.names())
    return [word for word in dict.fromkeys([*own, *more]) if word not in named]


def word_gate(text: TextEncoder, concepts: ConceptSet) -> list[WordGate]:
    """A gate a concept, in the space of a text encoder of the core.

    EraseError when the encoder finds none of a concept's names.
    """
    return [_gate(text, concept, concepts.names()) for concept in concepts.concepts]


def _gate(text: TextEncoder, concept: Concept, erased: Iterable[str]) -> WordGate:
    placed = [(frame + name, name) for name in concept.names() for frame in FRAMES]
    kept = [frame + word for word in kept_words(concept, erased) for frame in FRAMES]
    states = text.encode([prompt for prompt, _ in placed]).context
    names = []
    for row, (prompt, name) in zip(states, placed, strict=True):
        names.append(row[text.token_mask(prompt, name).bool()[: len(row)]])
    return WordGate(names, text.encode(kept).rows())


class Gated:
    """An adapter at a strength of its own for every row of the batch, ``strength`` (B,)."""

    def __init__(self, eraser: Adapter, strength: Tensor) -> None:
        self.eraser, self.strength = eraser, strength

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus the change at module ``name``; rows of strength 0 bit for bit."""
        changed = self.eraser(name, x, y)
        if changed is y:
            return y
        rows = self.strength.to(y).view(-1, *[1] * (y.ndim - 1))
        return torch.where(rows == 0, y, torch.lerp(y, changed, rows))


@dataclass(frozen=True)
class WordGateSettings(GuardSettings):
    """How strongly the eraser acts where the words say so, and when."""


def act_on_words(model: Model, guard: Guard) -> Act:
    """The eraser, as far as a prompt's words hold one of the concepts."""
    eraser, gates = guard.eraser(model), word_gate(model.text, guard.concepts)
    settings: WordGateSettings = guard.settings

    @lru_cache(maxsize=1)  # all steps of a batch have the same prompts
    def opened(cond: Conditioning) -> Tensor:
        return torch.stack([gate.strength(cond.context, cond.mask) for gate in gates]).amax(0)

    def acted(model: Model, call: Call) -> Tensor:
        strength = opened(call.cond)
        if strength.any():
            call = call.gated(Gated(eraser, settings.strength * strength))
        return call.of(model)

    return acted


@dataclass(frozen=True)
class VelocityGateSettings(GuardSettings):
    """Where the gate looks, and when it opens."""

    look: float = setting(0.1, "share of the steps that are looked at", low=0, high=1, step=0.01)
    low: float = setting(
        0.5, "share of the concept's own change at which it begins to open", low=0, high=10,
        step=0.05,
    )  # fmt: skip
    high: float = setting(
        0.7, "share of the concept's own change at which it is open", low=0, high=10, step=0.05
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise EraseError("The setting low must not be above high.")


class Opening:
    """What a velocity gate found at the steps that it looked at, for one batch."""

    def __init__(self, settings: VelocityGateSettings) -> None:
        self.settings = settings
        self.shares: list[Tensor] = []

    def look(self, base: Tensor, erased: Tensor, ends: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """How far the gate opens, (B,), after one more step: predictions (B, ...) of base and
        eraser for the prompt, and in ``ends`` for each concept's name."""
        moved = _distance(base, erased)
        own = torch.stack([_distance(*pair) for pair in ends])
        self.shares.append((moved / own.clamp_min(1e-12)).amax(0))
        return self.strength()

    def strength(self) -> Tensor:
        """How far it opens by what was seen."""
        seen = torch.stack(self.shares).mean(0)
        return ramp(seen, self.settings.low, self.settings.high)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).flatten(1).float().norm(dim=1)


def act_on_velocities(model: Model, guard: Guard) -> Act:
    """The eraser, as far as it changes the first steps as it changes the concept's own."""
    eraser, settings = guard.eraser(model), guard.settings
    names = [model.text.encode([concept.name]) for concept in guard.concepts.concepts]
    looked, _ = VelocityGateSettings(start=settings.look).levels(model.shift_mu)
    last, opening = 0.0, Opening(settings)

    def acted(model: Model, call: Call) -> Tensor:
        nonlocal last, opening
        level = float(call.sigma.max())
        if call.kept is None or level >= last:  # another picture begins
            opening = Opening(settings)
        last = level
        if opening.shares and level < looked:
            strength = settings.strength * opening.strength()
            return (call.gated(Gated(eraser, strength)) if strength.any() else call).of(model)
        base, erased = call.of(model), call.gated(eraser).of(model)
        ends = [
            (at(call, name).of(plain(model)), at(call, name, eraser).of(plain(model)))
            for name in names
        ]
        return mixed(base, erased, settings.strength * opening.look(base, erased, ends))

    return acted


def mixed(base: Tensor, erased: Tensor, strength: Tensor) -> Tensor:
    """``base + strength (erased - base)`` (B, ...); rows of strength 0 bit for bit."""
    rows = strength.to(base).view(-1, *[1] * (base.ndim - 1))
    return torch.where(rows == 0, base, torch.lerp(base, erased, rows))


GUARDS = (
    GuardMethod(
        "word-gate", "Word gate", "after SPM, arXiv 2312.16145", WordGateSettings, act_on_words,
        eraser=True,
    ),
    GuardMethod(
        "velocity-gate", "Velocity gate", "after UnGuide, arXiv 2508.05755", VelocityGateSettings,
        act_on_velocities, eraser=True,
    ),
)  # fmt: skip
