"""What each method of guarding does in the host; each is a :class:`~.guarding.Acting`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.erasers.guards.dve import DveSettings, Kept, take_out
from ..erase_core.erasers.guards.gate import (
    Opening,
    VelocityGateSettings,
    WordGate,
    WordGateSettings,
    mixed,
)
from . import guarding
from .forward_side import ForwardSide
from .guarding import Conds, Step, Strengths, window
from .words import word_gates


class Dve:
    """The concept's direction out of every step's prediction.

    The direction comes from the MODEL as it is, its LoRAs included: they are in its weights.
    """

    def __init__(self, clip: Any, concepts: ConceptSet, settings: DveSettings) -> None:
        self.settings = settings
        self.anchors = settings.anchors(concepts)
        texts = dict.fromkeys((*self.anchors, *self.anchors.values()))
        self._conds = {text: guarding.prompt(clip, text) for text in texts}
        self._gates = word_gates(clip, concepts) if settings.words else {}
        self._open: dict[str, Tensor] = {}
        self._kept = Kept(settings.every)

    def prompts(self) -> dict[str, Any]:
        return self._conds

    def begin(self, conds: Conds, model: Any) -> None:
        """Read the prompts, where their words count."""
        self._open, self._kept = opened(self._gates, conds), Kept(self.settings.every)

    def act(self, step: Step) -> tuple[Tensor, Strengths]:
        ours, still = step.again(step.x), [0.0] * len(step.x)
        named = {name: fitted(share, step.x) > 0 for name, share in self._open.items()}
        meant = [name for name in self.anchors if name not in named or bool(named[name].any())]
        if not meant:
            return ours, dict.fromkeys(self.anchors, still)
        texts = list(dict.fromkeys((*(self.anchors[name] for name in meant), *meant)))
        sigma = step.sigma.view(-1, *[1] * (step.x.ndim - 1))

        def predict() -> dict[str, Tensor]:
            found = zip(texts, step.predict(texts), strict=True)
            return {text: (step.x - clean) / sigma for text, clean in found}

        slopes = self._kept.at(step.x, step.sigma, predict)
        slope, parts = (step.x - ours) / sigma, dict.fromkeys(self.anchors, still)
        touched = torch.zeros(len(ours), dtype=torch.bool)
        for name in meant:
            anchor = slopes[self.anchors[name]]
            slope, part = take_out(slope, slopes[name], anchor, self.settings, named.get(name))
            parts[name] = part.tolist()
            touched = touched | (part != 0).cpu()
        rows = touched.to(ours.device).view_as(sigma)
        return torch.where(rows, (step.x - sigma * slope).to(ours.dtype), ours), parts


class ByWords:
    """An eraser as far as a prompt's words hold one of the concepts."""

    def __init__(
        self, clip: Any, concepts: ConceptSet, settings: WordGateSettings, eraser: ForwardSide
    ) -> None:
        self.settings, self.eraser = settings, eraser
        self.gates = word_gates(clip, concepts)
        self._open: dict[str, Tensor] = {}
        self._model: Any = None

    def prompts(self) -> dict[str, Any]:
        return {}

    def begin(self, conds: Conds, model: Any) -> None:
        """Read the prompts."""
        self._open, self._model = opened(self.gates, conds), model.model

    def act(self, step: Step) -> tuple[Tensor, Strengths]:
        found = {name: fitted(share, step.x) for name, share in self._open.items()}
        strength = self.settings.strength * torch.stack(list(found.values())).amax(0)
        with self.eraser.applied(self._model, strength) if strength.any() else nullcontext():
            return step.again(step.x), {name: share.tolist() for name, share in found.items()}


class ByVelocities:
    """An eraser as far as it changes the first steps as it changes the concept's own."""

    def __init__(
        self, clip: Any, concepts: ConceptSet, settings: VelocityGateSettings, eraser: ForwardSide
    ) -> None:
        self.settings, self.eraser = settings, eraser
        self._conds = {c.name: guarding.prompt(clip, c.name) for c in concepts.concepts}
        self._model: Any = None
        self._opening = Opening(settings)
        self._looked = 0.0

    def prompts(self) -> dict[str, Any]:
        return self._conds

    def begin(self, conds: Conds, model: Any) -> None:
        """Nothing is known of these pictures yet."""
        self._model, self._opening = model.model, Opening(self.settings)
        seen = VelocityGateSettings(start=self.settings.look)
        self._looked, _ = window(seen, model.get_model_object("model_sampling"))

    def act(self, step: Step) -> tuple[Tensor, Strengths]:
        if self._opening.shares and float(step.sigma.max()) < self._looked:
            strength = self.settings.strength * self._opening.strength()
            with self.eraser.applied(self._model, strength) if strength.any() else nullcontext():
                return step.again(step.x), self._told()
        names, all_of_it = list(self._conds), torch.ones(len(step.x))
        base, ends = step.again(step.x), step.predict(names)
        with self.eraser.applied(self._model, all_of_it):
            erased, erased_ends = step.again(step.x), step.predict(names)
        pairs = list(zip(ends, erased_ends, strict=True))
        strength = self.settings.strength * self._opening.look(base, erased, pairs)
        return mixed(base, erased, strength), self._told()

    def _told(self) -> Strengths:
        return {" or ".join(self._conds): self._opening.strength().tolist()}


def opened(gates: dict[str, WordGate], conds: Conds) -> dict[str, Tensor]:
    """How far the prompts open each gate, (P,): of several that hold at once, the one that opens it
    most."""
    prompts = guarding.asked(conds)
    states = [c["cross_attn"].float().cpu() for c in prompts if c.get("cross_attn") is not None]
    return {name: _most([gate.strength(each) for each in states]) for name, gate in gates.items()}


def fitted(rows: Tensor, x: Tensor) -> Tensor:
    """One number a prompt (P,) as one a picture (B,), repeated as the host repeats prompts."""
    return comfy.utils.repeat_to_batch_size(rows, len(x))


def _most(rows: list[Tensor]) -> Tensor:
    """The largest of several prompts' numbers, picture by picture."""
    count = max(len(each) for each in rows)
    return torch.stack([comfy.utils.repeat_to_batch_size(each, count) for each in rows]).amax(0)
