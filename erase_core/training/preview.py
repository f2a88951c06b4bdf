"""Pictures of a run on its way: the same seeds without the LoRA and with it as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.eraseanything.trainer import Trainer
from ..models.flux1.forward import Conditioning, Lora
from ..models.sampling import euler, noise, sigmas

CONCEPTS = 3  # shown at most
STEPS = 16


@dataclass(frozen=True)
class Preview:
    """A prompt of each concept, at most CONCEPTS, and one of what must stay (if there is any)."""

    trainer: Trainer
    prompts: tuple[str, ...]
    cond: Conditioning

    @classmethod
    def of(cls, trainer: Trainer) -> Preview:
        """The preview of a run whose prompts are encoded or will be now."""
        encoded, plan = trainer.encode(), trainer.plan
        count = min(CONCEPTS, len(trainer.concepts.concepts))
        rows = torch.stack([plan.rows(concept)[0] for concept in range(count)])
        texts = [plan.erase[row].sentence.text for row in rows.tolist()]
        parts = [encoded.erase(rows).cond]
        kept = [row for row, text in enumerate(plan.keep) if text][:1]
        if kept:
            texts += [plan.keep[row] for row in kept]
            parts.append(encoded.keep(torch.tensor(kept)).cond)
        return cls(trainer, tuple(texts), Conditioning.cat(parts))

    @torch.no_grad()
    def latents(
        self, lora: Lora | None = None, on_step: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        """One picture a prompt, (B, 16, h, w) on the CPU, from the noise of the run's seed.

        ``on_step`` hears how many of the STEPS are done; what it raises ends the drawing.
        """
        trainer, settings = self.trainer, self.trainer.settings
        start = noise(settings.seed, 1, settings.height, settings.width)
        x = start.expand(len(self.prompts), -1, -1, -1).to(trainer.device)
        cond = self.cond.to(trainer.device)
        guidance = settings.guidance_rollout if trainer.config.guidance_embed else None
        levels = sigmas(STEPS, settings.shift_mu)

        def walk(x: Tensor, sigma: Tensor) -> Tensor:
            return trainer.sampler.velocity(x, sigma, cond, guidance, lora)

        return euler(walk, x, levels, lambda index, *_: on_step(index + 1)).cpu()
