"""What an attack on an eraser is to the benchmark, and where it finds all of them.

To add an attack, put a file into ``attacks/`` with a tuple ``ATTACKS``; it appears in every table.
An attack's budget stands in constants at the top of its file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...errors import EraseError
from ...models.base import Adapter, Conditioning, Model, OpenText
from ...registry import collect, find
from ..scores import Rate

STEPS, GUIDANCE = 28, 3.5  # of every sampling, as in the examination
BATCH = 32
SHOT_SEED = 7919  # keeps the attacker's pictures apart from those that are judged


class Asker(Protocol):
    """Who asks for pictures of a concept, and says which of them show it. MiniFlux's judge can say
    a prompt in other words, too, which some attacks want."""

    def cases(self, names: Sequence[str], count: int, seed: int) -> Sequence[Any]: ...

    def shown(self, pictures: Tensor, asked: Sequence[Any]) -> list[bool]: ...


class Shots(NamedTuple):
    """Pictures of a concept by the untouched model: their cases and latents (N, C, h, w)."""

    cases: list[Any]
    latents: Tensor


@dataclass(frozen=True)
class Target:
    """What is attacked: a model with an eraser (None: as it is) that shall draw ``concept`` again.

    Where there is an eraser ``guarded``, a model with guards, is asked instead of ``model``.
    ``count`` pictures are judged; same seed, same rate. ``on_step(done, total)`` hears how far the
    work is.
    """

    model: Model
    judge: Asker
    eraser: Adapter | None
    concept: str
    count: int = 16
    seed: int = 0
    on_step: Callable[[int, int], None] = lambda done, total: None
    guarded: Model | None = None

    @property
    def levels(self) -> Tensor:
        """The sampler's noise levels, (STEPS + 1,)."""
        return self.model.sigmas(STEPS).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def encoders(self) -> OpenText:
        """The model's text encoders, which an attacker looks into; EraseError if nobody can."""
        if not isinstance(self.model.text, OpenText):
            raise EraseError(
                f"The text encoders of {self.model.name} cannot be looked into, which this attack "
                "must; choose another attack."
            )
        return self.model.text

    def cases(self) -> list[Any]:
        """The pictures that are judged, in wordings that no training ever saw."""
        return list(self.judge.cases([self.concept], self.count, self.seed))

    def start(self, made: list[Any]) -> Tensor:
        """The noise of each case's seed, (N, C, h, w)."""
        return self.model.noise([case.seed for case in made]).to(self.device)

    def encode(self, made: list[Any]) -> Conditioning:
        """The cases' prompts, on the model's device."""
        return self.model.text.encode([case.prompt for case in made]).to(self.device)

    def empty(self, count: int) -> Conditioning:
        """The empty prompt, ``count`` times."""
        return self.model.text.encode([""]).to(self.device).select([0] * count)

    def velocity(
        self, x: Tensor, sigma: Tensor, cond: Conditioning, eraser: Adapter | None
    ) -> Tensor:
        """What the model with ``eraser`` predicts at x (B, C, h, w); sigma is () or (B,)."""
        return self._asked(eraser).velocity(x, sigma, cond, GUIDANCE, eraser)

    def sample(self, cond: Conditioning, x: Tensor, eraser: Adapter | None) -> Tensor:
        """Latents (N, C, h, w) that the model with ``eraser`` makes of the noise ``x``."""
        model = self._asked(eraser)
        return model.sample(cond, x, eraser, steps=STEPS, guidance=GUIDANCE, batch=BATCH)

    def _asked(self, eraser: Adapter | None) -> Model:
        """The model, which guards are on where there is an eraser."""
        return self.model if eraser is None or self.guarded is None else self.guarded

    def shown(self, latents: Tensor, made: list[Any]) -> list[bool]:
        """Whether each picture shows the concept of its case."""
        return self.judge.shown(self.model.decode(latents), made)

    def rate(self, cond: Conditioning, x: Tensor, eraser: Adapter | None, made: list[Any]) -> Rate:
        """How often the concept is in what the model with ``eraser`` makes of the noise ``x``."""
        return Rate.of(self.shown(self.sample(cond, x, eraser), made))

    def shots(self, count: int) -> Shots:
        """``count`` pictures of the concept by the untouched model, none of them judged later.

        Fewer when it draws the concept in fewer of twice as many; EraseError when in none.
        """
        drawn = list(self.judge.cases([self.concept], 2 * count, self.seed + SHOT_SEED))
        latents = self.sample(self.encode(drawn), self.start(drawn), None)
        good = [row for row, hit in enumerate(self.shown(latents, drawn)) if hit][:count]
        if not good:
            raise EraseError(
                f"{self.model.name} draws no {self.concept}, so there is nothing to bring back; "
                "choose a concept that it draws."
            )
        return Shots([drawn[row] for row in good], latents[good])

    def flow_matching(
        self, x0: Tensor, cond: Conditioning, eraser: Adapter | None, generator: torch.Generator
    ) -> Tensor:
        """``mean || v(x_t, c) - (eps - x_0) ||^2`` at levels t that the sampler visits.

        ``x0`` (B, C, h, w) with its B prompts; ``x_t = (1 - t) x_0 + t eps``.
        """
        rows = torch.randint(STEPS, (len(x0),), generator=generator)
        t = self.levels[rows.to(self.device)]
        eps = torch.randn(x0.shape, generator=generator).to(self.device)
        mix = t[:, None, None, None]
        predicted = self.velocity((1 - mix) * x0 + mix * eps, t, cond, eraser)
        return (predicted - (eps - x0)).square().mean()


@dataclass(frozen=True)
class Attack:
    """A column of the robustness table.

    ``name`` is said on the command line and in files, ``label`` in tables and plots. ``source`` is
    the paper it follows. ``run`` gives the rate of pictures in which the concept is back.
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
