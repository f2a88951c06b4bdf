"""Pictures of a run on its way: the same seeds without the eraser and with it as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..concepts.grammar import MANY
from ..models.base import Adapter, Conditioning, Model
from .prompts import EncodedPrompts

CONCEPTS = 3  # shown at most
STEPS = 16


@dataclass(frozen=True)
class Preview:
    """A prompt of each concept, at most CONCEPTS, and one of what must stay (if there is any).

    ``size`` is (height, width) in pixels; ``seed`` that of the noise; ``guidance`` the model's
    input, None without one.
    """

    model: Model
    prompts: tuple[str, ...]
    cond: Conditioning
    size: tuple[int, int]
    seed: int
    guidance: float | None

    @classmethod
    def of(
        cls,
        model: Model,
        encoded: EncodedPrompts,
        size: tuple[int, int],
        seed: int,
        guidance: float | None,
    ) -> Preview:
        """The preview of a run with these prompts."""
        plan = encoded.plan
        concepts = dict.fromkeys(prompt.concept for prompt in plan.erase)
        told = [prompt.sentence.text for prompt in plan.erase]
        rows = [_plainest(plan.rows(concept).tolist(), told) for concept in concepts][:CONCEPTS]
        texts, parts = [told[row] for row in rows], [encoded.erase(torch.tensor(rows)).cond]
        kept = [row for row, text in enumerate(plan.keep) if text]
        if kept:
            row = _plainest(kept, plan.keep)
            texts.append(plan.keep[row])
            parts.append(encoded.keep(torch.tensor([row])).cond)
        return cls(model, tuple(texts), Conditioning.cat(parts), size, seed, guidance)

    def latents(
        self, eraser: Adapter | None = None, on_step: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        """One picture a prompt, (B, C, h, w) on the CPU, all from one noise.

        ``on_step`` hears how many steps of all pictures are done; what it raises ends the drawing.
        """
        start = self.model.noise([self.seed], self.size).expand(len(self.prompts), -1, -1, -1)
        return self.model.sample(
            self.cond, start, eraser, steps=STEPS, guidance=self.guidance, on_step=on_step
        ).cpu()


def _plainest(rows: Sequence[int], texts: Sequence[str]) -> int:
    """The first of the rows that counts nothing, with the fewest words: "a tiger" comes before
    "three tigers" and "a robot inside a tiger"."""

    def words(row: int) -> tuple[bool, int]:
        told = texts[row].lower().split()
        return any(word in MANY for word in told), len(told)

    return min(rows, key=words)
