"""Differential Vector Erasure (Zhang et al. 2026, arXiv 2602.01089), without training.

A concept is the difference that its name makes to what the model predicts: ``d = v_c - v_a``. Here
``v_c`` is the prediction for its name and ``v_a`` that for an anchor, at the same state. Of our own
prediction v, guided as it is, the part along d goes where it is positive:

    a = <v - v_a, d> / <d, d>,    v' = v - strength a d  where a > threshold, else v

with one ``a`` a picture. At 0 it leans to the concept no more than the anchor's does, at 1 as much
as the concept's own. At strength 1 a picture ends where the anchor is along d.

That is ``words`` false. It is mild: the name alone draws one thing in the middle, and of "a rose
and a tiger" little lies along that. So by default the prompt's words decide whether anything goes,

    v' = v - strength max(a, least) d   in prompts that name the concept, as the word gate tells,

and the anchor is a relative of the concept, so that a part of 1 swaps the one for the other. From
the empty prompt a tiger goes only at a part of 4, and the rest of the picture with it. Other
prompts stay bit for bit and cost nothing. One d serves ``every`` steps, since it changes slowly.

Ours differs from the paper in these points:

- The paper projects v itself, and so removes what noise and background have in common with d, too.
  Measured from the anchor, ``a`` is the same number for velocities, noise and ``x_0`` predictions,
  whose relation is affine at one state: the guard works on models of either kind.
- The words with their anchors, ``least`` and ``every`` are ours.
- v is the whole prediction, with a negative prompt's guidance in it; d comes from plain passes. So
  at guidance 4 ``a`` may be 4, and all of that goes.
- Several concepts go one after another. Their directions need not be orthogonal, and the later one
  has the last word.
- Here d comes from the model without erasers: an erased model knows no concept to take out. In
  ComfyUI LoRAs are in the weights, so d comes from the MODEL as it is.

docs/guards.md has what it leaves on MiniFlux, and what was tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ...concepts.sets import ConceptSet
from ...models.base import Conditioning, Model
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, at, plain
from .gate import word_gate


@dataclass(frozen=True)
class DveSettings(GuardSettings):
    """When and how much the concept's direction is taken out."""

    threshold: float = setting(
        0.0, "least share of the concept that is acted on", low=-10, high=10, step=0.05
    )
    anchor: str = setting(
        "",
        "prompt that the concept is measured from; empty: with words a relative of the concept, "
        "without them the empty prompt",
    )
    words: bool = setting(True, "act on prompts alone that name the concept, and then by least")
    least: float = setting(
        1.0, "least part taken out of prompts that name the concept", low=0, high=20, step=0.5
    )
    every: int = setting(4, "steps that one direction serves", low=1, high=1000)

    def anchors(self, concepts: ConceptSet) -> dict[str, str]:
        """The prompt that each concept is measured from, by the concept's name."""
        return {
            concept.name: self.anchor or (concept.anchor if self.words else "")
            for concept in concepts.concepts
        }


def lean(ours: Tensor, concept: Tensor, anchor: Tensor) -> Tensor:
    """``a`` above (B,) for predictions (B, ...): how far ours leans from the anchor's to the
    concept's; 0 where these are equal. Computed in float32 or wider."""
    d = (concept - anchor).flatten(1)
    d = d.to(torch.promote_types(d.dtype, torch.float32))
    part = ((ours - anchor).flatten(1).to(d) * d).sum(1)
    size = (d * d).sum(1)
    return torch.where(size > 0, part / size.clamp_min(torch.finfo(d.dtype).tiny), 0.0)


def take_out(
    ours: Tensor,
    concept: Tensor,
    anchor: Tensor,
    settings: DveSettings,
    named: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Ours without its part along the concept's direction, and that part (B,).

    Predictions are (B, ...), all velocities or all ``x_0``. ``named`` (B,) bool says which prompts
    name the concept, None when that does not count. Other rows come back bit for bit, with a part
    of 0.
    """
    a = lean(ours, concept, anchor)
    taken = a > settings.threshold if named is None else named.to(a.device)
    part = a if named is None else a.clamp_min(settings.least)
    part = torch.where(taken, settings.strength * part, 0.0)
    rows = part.view(-1, *[1] * (ours.ndim - 1))
    return torch.where(rows != 0, ours - (rows * (concept - anchor)).to(ours.dtype), ours), part


class Kept:
    """The velocities by prompt of one picture or batch, which serve ``every`` steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._found: dict[str, Tensor] = {}
        self._last, self._age = 0.0, 0

    def at(
        self, x: Tensor, sigma: Tensor, predict: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Those of latents ``x`` at a level: what ``predict()`` says now, or some steps ago."""
        level = float(sigma.max())
        begun = level >= self._last or any(v.shape != x.shape for v in self._found.values())
        self._age = 0 if begun else (self._age + 1) % self.every
        self._last = level
        if self._age == 0:
            self._found = predict()
        return self._found


def act(model: Model, guard: Guard) -> Act:
    """One direction a concept, each taken out of what the one before leaves.

    Directions come from the model without erasers: an erased model knows no concept to take out.
    """
    settings: DveSettings = guard.settings
    anchors = settings.anchors(guard.concepts)
    texts = dict.fromkeys((*anchors.values(), *anchors))
    encoded = {text: model.text.encode([text]) for text in texts}
    gates = word_gate(model.text, guard.concepts) if settings.words else []

    @lru_cache(maxsize=1)  # all steps of a batch have the same prompts
    def named(cond: Conditioning) -> list[Tensor | None]:
        opened = [gate.strength(cond.context, cond.mask) > 0 for gate in gates]
        return [*opened] if settings.words else [None] * len(anchors)

    def acted(model: Model, call: Call) -> Tensor:
        v, rows = call.of(model), named(call.cond)
        meant = {
            name: row
            for name, row in zip(anchors, rows, strict=True)
            if row is None or bool(row.any())
        }
        if not meant:
            return v

        def predict() -> dict[str, Tensor]:
            texts = dict.fromkeys((*(anchors[name] for name in meant), *meant))
            return {text: at(call, encoded[text]).of(plain(model)) for text in texts}

        kept = Kept(1) if call.kept is None else call.kept.setdefault("dve", Kept(settings.every))
        found = kept.at(call.x, call.sigma, predict)
        for name, row in meant.items():
            v, _ = take_out(v, found[name], found[anchors[name]], settings, row)
        return v

    return acted


GUARDS = (GuardMethod("dve", "DVE", "Zhang et al. 2026, arXiv 2602.01089", DveSettings, act),)
