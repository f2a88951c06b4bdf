"""What an attack on an eraser is to the benchmark, and where it finds all of them.

To add an attack, put a file into ``attacks/`` with a tuple ``ATTACKS``; it appears in every table.
An attack's budget stands in constants at the top of its file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import EraseError
from ...miniatures.miniflux.judge import Case, cases, judge, recognise
from ...miniatures.miniflux.recogniser import Recogniser
from ...models.base import Bundle
from ...models.flux1.forward import Conditioning, Lora, tree_device, velocity
from ...models.sampling import euler, noise, sigmas
from ...registry import collect, find
from ..scores import Rate

STEPS, GUIDANCE = 28, 3.5  # of every sampling, as in the examination
BATCH = 32
SHOT_SEED = 7919  # keeps the attacker's pictures apart from those that are judged


class Shots(NamedTuple):
    """Pictures of a concept by the untouched model: their cases and latents (N, 16, h, w)."""

    cases: list[Case]
    latents: Tensor


@dataclass(frozen=True)
class Target:
    """What is attacked: a model with an eraser (None: as it is) that shall draw ``concept`` again.

    ``count`` pictures are judged; same seed, same rate. ``on_step(done, total)`` hears how far the
    work is.
    """

    bundle: Bundle
    judge: Recogniser
    eraser: Lora | None
    concept: str
    count: int = 16
    seed: int = 0
    on_step: Callable[[int, int], None] = lambda done, total: None

    @property
    def levels(self) -> Tensor:
        """The sampler's noise levels, (STEPS + 1,)."""
        return sigmas(STEPS, self.bundle.shift_mu).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return tree_device(self.bundle.tree)

    def cases(self) -> list[Case]:
        """The pictures that are judged, in wordings that no training ever saw."""
        return cases([self.concept], self.count, self.seed)

    def start(self, made: list[Case]) -> Tensor:
        """The noise of each case's seed, (N, 16, h, w)."""
        return torch.cat([noise(case.seed, 1, *self.bundle.size) for case in made]).to(self.device)

    def encode(self, made: list[Case]) -> Conditioning:
        """The cases' prompts, on the model's device."""
        return self.bundle.text.encode([case.prompt for case in made]).to(self.device)

    def empty(self, count: int) -> Conditioning:
        """The empty prompt, ``count`` times."""
        return self.bundle.text.encode([""]).to(self.device).select([0] * count)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, lora: Lora | None) -> Tensor:
        """What the model with ``lora`` predicts at x (B, 16, h, w); sigma is () or (B,)."""
        return velocity(self.bundle.tree, x, sigma.expand(len(x)), cond, GUIDANCE, lora=lora)

    @torch.no_grad()
    def sample(self, cond: Conditioning, x: Tensor, lora: Lora | None) -> Tensor:
        """Latents (N, 16, h, w) that the model with ``lora`` makes of the noise ``x``."""
        parts = []
        for rows in torch.arange(len(x)).split(BATCH):
            part = cond.select(rows.to(cond.context.device))

            def predict(x: Tensor, sigma: Tensor, part: Conditioning = part) -> Tensor:
                return self.velocity(x, sigma, part, lora)

            parts.append(euler(predict, x[rows], self.levels))
        return torch.cat(parts)

    def shown(self, latents: Tensor, made: list[Case]) -> list[bool]:
        """Whether each picture shows the concept of its case."""
        return judge(recognise(self.judge, self.bundle.decode(latents)), made)

    def rate(self, cond: Conditioning, x: Tensor, lora: Lora | None, made: list[Case]) -> Rate:
        """How often the concept is in what the model with ``lora`` makes of the noise ``x``."""
        return Rate.of(self.shown(self.sample(cond, x, lora), made))

    def shots(self, count: int) -> Shots:
        """``count`` pictures of the concept by the untouched model, none of them judged later.

        Fewer when it draws the concept in fewer of twice as many; EraseError when in none.
        """
        drawn = cases([self.concept], 2 * count, self.seed + SHOT_SEED)
        latents = self.sample(self.encode(drawn), self.start(drawn), None)
        good = [row for row, hit in enumerate(self.shown(latents, drawn)) if hit][:count]
        if not good:
            raise EraseError(
                f"{self.bundle.name} draws no {self.concept}, so there is nothing to bring back; "
                "choose a concept that it draws."
            )
        return Shots([drawn[row] for row in good], latents[good])

    def flow_matching(
        self, x0: Tensor, cond: Conditioning, lora: Lora | None, generator: torch.Generator
    ) -> Tensor:
        """``mean || v(x_t, c) - (eps - x_0) ||^2`` at levels t that the sampler visits.

        ``x0`` (B, 16, h, w) with its B prompts; ``x_t = (1 - t) x_0 + t eps``.
        """
        rows = torch.randint(STEPS, (len(x0),), generator=generator)
        t = self.levels[rows.to(self.device)]
        eps = torch.randn(x0.shape, generator=generator).to(self.device)
        mix = t[:, None, None, None]
        predicted = self.velocity((1 - mix) * x0 + mix * eps, t, cond, lora)
        return (predicted - (eps - x0)).square().mean()


@dataclass(frozen=True)
class Attack:
    """A column of the robustness table.

    ``name`` is said on the command line and in files, ``label`` in tables and plots; ``source`` is
    the paper it follows; ``run`` gives the rate of pictures in which the concept is back.
    """

    name: str
    label: str
    source: str
    run: Callable[[Target], Rate]


def attacks() -> dict[str, Attack]:
    """All attacks by name, file after file in alphabetical order."""
    return collect(__package__ or "", "ATTACKS", Attack)


def find_attack(name: str) -> Attack:
    """An attack by its name; EraseError, listing them, for any other."""
    return find(attacks(), name, "attack")
