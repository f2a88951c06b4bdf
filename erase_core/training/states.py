"""The states x_t that a run is trained at: kept Euler rollouts, or noised pictures of the user.

A rollout per training step would cost some 28 forwards each time. Here every state of a set of
rollouts is kept on the CPU. So is all that the losses need of the base model there: its velocities
and its attention. Training itself then runs the student alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import EraseError
from ..machine import main_memory
from ..models.base import Adapter, Conditioning, Model, Probe
from ..models.sampling import euler, finite
from .prompts import RowPrompts


class Batch(NamedTuple):
    """Training states on the CPU.

    ``rows`` (B,) long: the prompt each belongs to; ``latents`` (B, C, h, w) float32; ``sigma``
    (B,); ``target`` like ``latents``: the velocity of the base model at the state's own prompt, or
    ``eps - x_0`` for pictures; ``null``: the base model's velocity at the null prompt; ``contrast``
    (B, 1 + K, blocks, heads, Q): the base model's F_syn and F_k of Eq. 5. Both only if kept.
    """

    rows: Tensor
    latents: Tensor
    sigma: Tensor
    target: Tensor
    null: Tensor | None = None
    contrast: Tensor | None = None


@dataclass
class Rollouts:
    """All states of R rollouts of S steps; rollout r starts from prompt r.

    ``sigmas`` (S + 1,) float32, down to 0; ``latents`` (R, S, C, h, w) bfloat16, rounded *before*
    the model saw them, so that the rest belongs to exactly these states; ``target`` and ``null``
    like them and ``contrast`` (R, S, 1 + K, blocks, heads, Q) in the base's precision.
    """

    sigmas: Tensor
    latents: Tensor
    target: Tensor
    null: Tensor | None = None
    contrast: Tensor | None = None

    @classmethod
    def empty(
        cls,
        rollouts: int,
        sigmas: Tensor,
        latents: tuple[int, int, int],
        dtype: torch.dtype,
        null: bool = False,
        contrast: tuple[int, int, int, int] | None = None,
    ) -> Rollouts:
        """Room for ``rollouts`` along ``sigmas`` (S + 1,) of ``latents`` (C, h, w).

        ``contrast`` is (1 + K, blocks, heads, Q). EraseError when they are more than the machine's
        main memory, which its system would promise and then end the process.
        """
        states = (rollouts, len(sigmas) - 1)
        shape = (*states, *latents)
        velocities = math.prod(shape) * (2 if null else 1)
        attention = math.prod((*states, *contrast)) if contrast else 0
        needed = 2 * math.prod(shape) + dtype.itemsize * (velocities + attention)
        if needed > main_memory():
            raise EraseError(
                f"The states of {rollouts} rollouts take {needed / 1e9:.0f} GB, and there are "
                f"{main_memory() / 1e9:.0f}; ask for fewer rollouts or smaller pictures."
            )
        return cls(
            sigmas,
            torch.zeros(shape, dtype=torch.bfloat16),
            torch.zeros(shape, dtype=dtype),
            torch.zeros(shape, dtype=dtype) if null else None,
            torch.zeros(*states, *contrast, dtype=dtype) if contrast else None,
        )

    def __len__(self) -> int:
        return len(self.latents)

    def draw(self, generator: torch.Generator, count: int, rows: Tensor | None = None) -> Batch:
        """``count`` states, uniformly over rollouts (all, or those in ``rows``) and steps."""
        rows = torch.arange(len(self)) if rows is None else rows
        steps = self.latents.shape[1]
        index = torch.randint(len(rows) * steps, (count,), generator=generator)
        return self.at(rows[index // steps], index % steps)

    def at(self, row: Tensor, step: Tensor) -> Batch:
        """The states of rollouts ``row`` (B,) at ``step`` (B,)."""
        return Batch(
            row,
            self.latents[row, step].float(),
            self.sigmas[step],
            self.target[row, step].float(),
            None if self.null is None else self.null[row, step].float(),
            None if self.contrast is None else self.contrast[row, step].float(),
        )

    def like(self, rollouts: int) -> Rollouts:
        """Room for ``rollouts`` of the same kind."""
        kept = {n: t.new_zeros(rollouts, *t.shape[1:]) for n, t in self.tensors().items()}
        return Rollouts(**kept | {"sigmas": self.sigmas})

    def put(self, rows: Tensor, fresh: Rollouts) -> None:
        """Replace the rollouts ``rows`` (B,) by those of ``fresh``."""
        for name, tensor in self.tensors().items():
            if tensor is not self.sigmas:
                tensor[rows] = getattr(fresh, name)

    def filled(self) -> list[Tensor]:
        """What rollouts fill in."""
        return [tensor for tensor in self.tensors().values() if tensor is not self.sigmas]

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


class KeepPictures(NamedTuple):
    """The user's own pictures of what must stay.

    ``latents`` (N, C, h, w) as the model sees them (after the VAE's shift and scale), and a
    prompt for each.
    """

    latents: Tensor
    prompts: tuple[str, ...]


@dataclass
class Pictures:
    """The user's pictures as clean latents x_0 (N, C, h, w) float32; picture n has prompt n."""

    latents: Tensor

    def draw(self, generator: torch.Generator, count: int, rows: Tensor | None = None) -> Batch:
        """Noised pictures at logit-normal sigma, with the flow-matching target ``eps - x_0``."""
        rows = torch.arange(len(self.latents)) if rows is None else rows
        row = rows[torch.randint(len(rows), (count,), generator=generator)]
        clean = self.latents[row].float()
        noise = torch.randn(clean.shape, generator=generator)
        sigma = torch.randn(count, generator=generator).sigmoid()
        t = sigma[:, None, None, None]
        return Batch(row, (1 - t) * clean + t * noise, sigma, noise - clean)

    def tensors(self) -> dict[str, Tensor]:
        """The latents."""
        return {"latents": self.latents}


@dataclass
class Buffer:
    """The states of a run: of the concepts' prompts, and (with Eq. 4) of what must stay."""

    erase: Rollouts
    keep: Rollouts | Pictures | None

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, as "erase" and "keep"."""
        named = {"erase": self.erase.tensors()}
        return named if self.keep is None else named | {"keep": self.keep.tensors()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Mapping[str, Tensor]]) -> Buffer:
        """The inverse of :meth:`tensors`."""
        keep = tensors.get("keep")
        if keep is None:
            return cls(Rollouts(**tensors["erase"]), None)
        kept = Pictures(**keep) if len(keep) == 1 else Rollouts(**keep)
        return cls(Rollouts(**tensors["erase"]), kept)


class Sampler:
    """Rolls prompts out with the base model or the student and notes what the base model says.

    The guidance of the walk is that of a picture, that of the kept terms an input of the model
    (None: none); ``blocks`` the double blocks that Eq. 5 looks at.
    """

    def __init__(
        self,
        model: Model,
        guidance_rollout: float | None,
        guidance: float | None,
        blocks: tuple[int, ...],
    ) -> None:
        self.model, self.blocks = model, blocks
        self.guidance_rollout, self.guidance = guidance_rollout, guidance
        self.device = model.device

    @property
    def walks_once(self) -> bool:
        """Whether the base model's walk says what is kept of it, so that nothing is computed
        twice."""
        return self.guidance == self.guidance_rollout

    @torch.no_grad()
    def fill(
        self,
        states: Rollouts,
        rows: Tensor,
        prompts: RowPrompts,
        generator: torch.Generator,
        eraser: Adapter | None = None,
        along_null: bool = False,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Roll out ``rows`` of ``states`` from fresh noise and keep every state on the way.

        The walk follows the prompts, or ``along_null`` those that stand for nothing. With
        ``eraser`` the student walks, but all else that is kept is the base model's. EraseError
        when that one draws NaN.
        """
        own = eraser is None and self.walks_once
        cond = prompts.cond.to(self.device)
        null = None if prompts.null is None else prompts.null.to(self.device)
        path = null if along_null and null is not None else cond

        def walk(x: Tensor, sigma: Tensor) -> Tensor:
            return self.velocity(_rounded(x), sigma, path, self.guidance_rollout, eraser)

        def keep(step: int, x: Tensor, v: Tensor) -> None:
            x, sigma = _rounded(x), states.sigmas[step].to(x.device)
            if eraser is None and step == 0:
                finite(v)

            def base(prompt: Conditioning) -> Tensor:
                return (
                    v if own and prompt is path else self.velocity(x, sigma, prompt, self.guidance)
                )

            _put(states.latents, rows, step, x)
            _put(states.target, rows, step, base(cond))
            if states.null is not None and null is not None:
                _put(states.null, rows, step, base(null))
            if states.contrast is not None:
                found = [self._attention(x, sigma, *words) for words in prompts.contrast]
                _put(states.contrast, rows, step, torch.stack(found, dim=1))
            on_step()

        noise = self.skip(states, rows, generator)
        euler(walk, noise.to(self.device), states.sigmas, keep)

    def skip(self, states: Rollouts, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The noise that ``rows`` are rolled out from; another process rolls them out."""
        shape = (len(rows), *states.latents.shape[2:])
        return torch.randn(shape, generator=generator)

    @torch.no_grad()
    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None,
        eraser: Adapter | None = None,
    ) -> Tensor:
        """The model's velocity at ``x`` (B, C, h, w), all at one ``sigma`` ()."""
        return self.model.velocity(x, sigma, cond, guidance, eraser)

    def _attention(self, x: Tensor, sigma: Tensor, cond: Conditioning, tokens: Tensor) -> Tensor:
        """The base model's F of one word a row: (B, blocks, heads, Q)."""
        probe = Probe(self.blocks, tokens.to(self.device), stop=True)
        found = self.model.attention(x, sigma, cond.to(self.device), self.guidance, probe)
        return found[:, :, 0]


def _rounded(x: Tensor) -> Tensor:
    """``x`` as the buffer keeps it."""
    return x.bfloat16().to(x.dtype)


def _put(kept: Tensor, rows: Tensor, step: int, values: Tensor) -> None:
    kept[rows, step] = values.cpu().to(kept.dtype)
