"""Differential Vector Erasure (Zhang et al. 2026, arXiv 2602.01089), without training.

A concept is the difference that its name makes to what the model predicts: ``d = v_c - v_a``, with
the predictions ``v_c`` for its name and ``v_a`` for an anchor at the same state. Of our own
prediction v, guided as it is, the part along d goes where it is positive:

    a = <v - v_a, d> / <d, d>,    v' = v - strength a d  where a > threshold, else v

with one ``a`` a picture. At 0 it leans to the concept no more than the anchor's does, at 1 as much
as the concept's own. At strength 1 a picture ends where the anchor is along d.

Ours differs from the paper in these points:

- The paper projects v itself, and so removes what noise and background have in common with d, too.
  Measured from the anchor, ``a`` is the same number for velocities, noise and ``x_0`` predictions,
  whose relation is affine at one state: the guard works on models of either kind.
- v is the whole prediction, with a negative prompt's guidance in it; d comes from plain passes. So
  at guidance 4 ``a`` may be 4, and all of that goes.
- Several concepts go one after another. Their directions need not be orthogonal, and the later one
  has the last word.
- Here d comes from the model without erasers: an erased model knows no concept to take out. In
  ComfyUI LoRAs are in the weights, so d comes from the MODEL as it is.

docs/guards.md has what it leaves on MiniFlux.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.base import Model
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, at, plain


@dataclass(frozen=True)
class DveSettings(GuardSettings):
    """When and how much the concept's direction is taken out."""

    threshold: float = setting(
        0.0, "least share of the concept that is acted on", low=-10, high=10, step=0.05
    )
    anchor: str = setting("", "prompt that the concept is measured from; empty: the empty one")


def lean(ours: Tensor, concept: Tensor, anchor: Tensor) -> Tensor:
    """``a`` above (B,) for predictions (B, ...): how far ours leans from the anchor's to the
    concept's; 0 where these are equal. Computed in float32 or wider."""
    d = (concept - anchor).flatten(1)
    d = d.to(torch.promote_types(d.dtype, torch.float32))
    part = ((ours - anchor).flatten(1).to(d) * d).sum(1)
    size = (d * d).sum(1)
    return torch.where(size > 0, part / size.clamp_min(torch.finfo(d.dtype).tiny), 0.0)


def take_out(
    ours: Tensor, concept: Tensor, anchor: Tensor, strength: float, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Ours without its part along the concept's direction, and that part ``strength a`` (B,).

    Predictions are (B, ...), all velocities or all ``x_0``. Rows below the threshold come back bit
    for bit, with a part of 0.
    """
    a = lean(ours, concept, anchor)
    part = torch.where(a > threshold, strength * a, 0.0)
    rows = part.view(-1, *[1] * (ours.ndim - 1))
    return torch.where(rows != 0, ours - (rows * (concept - anchor)).to(ours.dtype), ours), part


def act(model: Model, guard: Guard) -> Act:
    """One direction a concept, each taken out of what the one before leaves.

    Directions come from the model without erasers: an erased model knows no concept to take out.
    """
    settings: DveSettings = guard.settings
    names = [concept.name for concept in guard.concepts.concepts]
    encoded = {text: model.text.encode([text]) for text in (settings.anchor, *names)}

    def acted(model: Model, call: Call) -> Tensor:
        v, untouched = call.of(model), plain(model)
        anchor = at(call, encoded[settings.anchor]).of(untouched)
        for name in names:
            concept = at(call, encoded[name]).of(untouched)
            v, _ = take_out(v, concept, anchor, settings.strength, settings.threshold)
        return v

    return acted


GUARDS = (GuardMethod("dve", "DVE", "Zhang et al. 2026, arXiv 2602.01089", DveSettings, act),)
