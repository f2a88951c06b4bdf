"""SAFREE (Yoon et al. 2025, arXiv 2410.12761): the prompt's states kept off a concept, no training.

The states of the concept's names, centred on the mean m of what ordinary prompts have in common,
span a subspace with orthonormal basis C. In a prompt that names the concept, as the word gate tells
it, every token t leaves that subspace,

    t' = t - strength C C^T (t - m),

and so does the pooled vector, from that of the names' pooled vectors. The changed prompt holds for
a share of the steps by how far the mean state moves, ``reach sigmoid(1 - cos(mean t, mean t'))``.
Other prompts stay bit for bit.

Ours differs from the paper in these points:

- The paper finds near tokens by encoding the prompt again without each, and comparing distances of
  means to their average. Among 256 padding tokens one token more or less does not show. So the
  prompt is judged as a whole, by its nearest tokens: see gate.py.
- It spans the subspace with whole prompts' vectors as they are. Ours takes the states of the names'
  own tokens, centred: T5's states share a large common part.
- It moves near tokens alone, and puts them back into the span of the prompts with one token masked.
  T5 mixes the name into every token, the padding among them, and all are read. So all are moved.
- The pooled vector, which Flux-like models read beside the tokens, is kept off as well.
- The share of the steps is the paper's with ``reach`` for its gamma, of all steps instead of a
  count. So a prompt that names the concept is changed for half of ``reach`` or more.
- The paper's last part, which damps features of U-Nets in Fourier space, has no place here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...concepts.sets import Concept, ConceptSet
from ...models.base import Conditioning, Model, TextEncoder
from ...settings import setting
from .base import Act, Call, Guard, GuardMethod, GuardSettings, inside
from .gate import FRAMES, WordGate, kept_words

SMALL = 0.1  # singular values below this share of the largest are noise of the wordings


class Cleaned(NamedTuple):
    """A prompt off the concepts: ``context`` (B, T, D), and ``pooled`` (B, P) or None. ``near``
    (B, T) says which tokens name the concept, ``share`` (B,) for how many of the steps the prompt
    is changed; 0 is for none."""

    context: Tensor
    pooled: Tensor | None
    near: Tensor
    share: Tensor


class Space:
    """Where a concept lies among text states, and among pooled vectors where there are any.

    ``names`` are states (n, D) of the tokens of each name and ``kept`` whole prompts (T, D) that
    name something else; ``pooled`` and ``pooled_kept`` are (N, P) and (M, P).
    """

    def __init__(
        self,
        names: Sequence[Tensor],
        kept: Sequence[Tensor],
        pooled: Tensor | None = None,
        pooled_kept: Tensor | None = None,
    ) -> None:
        self.gate = WordGate(names, kept)
        self.mean = self.gate.mean
        self.basis = basis(torch.cat(list(names)).float() - self.mean)
        self.pooled: tuple[Tensor, Tensor] | None = None
        if pooled is not None and pooled_kept is not None:
            middle = pooled_kept.float().mean(0)
            self.pooled = middle, basis(pooled.float() - middle)

    def clean(
        self,
        context: Tensor,
        pooled: Tensor | None,
        settings: SafreeSettings,
        mask: Tensor | None = None,
    ) -> Cleaned:
        """A prompt off the concept; rows that do not name it come back bit for bit. Tokens that
        ``mask`` (B, T) leaves out are neither looked at nor moved, None for none."""
        if mask is not None:
            parts = [
                self.clean(context[None, row, read], _one(pooled, row), settings)
                for row, read in enumerate(mask)
            ]
            return _put_back(parts, context, mask)
        named = self.gate.strength(context) > 0
        off = context - settings.strength * inside_of(context, self.mean, self.basis)
        cleaned = torch.where(named[:, None, None], off, context)
        if pooled is not None and self.pooled is not None:
            kept = pooled - settings.strength * inside_of(pooled, *self.pooled)
            pooled = torch.where(named[:, None], kept, pooled)
        means = (context.float().mean(1), cleaned.float().mean(1))
        moved = 1 - F.cosine_similarity(*means, dim=-1)
        steps = (settings.reach * torch.sigmoid(moved)).clamp(max=1)
        near = self.gate.near(context) & named[:, None]
        return Cleaned(cleaned, pooled, near, torch.where(named, steps, 0.0))


def _one(pooled: Tensor | None, row: int) -> Tensor | None:
    """The pooled vector of one row, still in a batch."""
    return None if pooled is None else pooled[row : row + 1]


def _put_back(parts: Sequence[Cleaned], context: Tensor, mask: Tensor) -> Cleaned:
    """Prompts that were cleaned without the tokens that ``mask`` leaves out, with them."""
    cleaned, near = context.clone(), torch.zeros_like(mask)
    cleaned[mask] = torch.cat([part.context[0] for part in parts])
    near[mask] = torch.cat([part.near[0] for part in parts])
    pooled = [part.pooled for part in parts if part.pooled is not None]
    share = torch.cat([part.share for part in parts])
    return Cleaned(cleaned, torch.cat(pooled) if pooled else None, near, share)


def basis(vectors: Tensor) -> Tensor:
    """An orthonormal basis (D, r) of what vectors (N, D) span, small directions left out."""
    _, sizes, rows = torch.linalg.svd(vectors, full_matrices=False)
    return rows[sizes > SMALL * sizes.max().clamp_min(1e-12)].T


def inside_of(vectors: Tensor, mean: Tensor, space: Tensor) -> Tensor:
    """The part of vectors (..., P), centred on ``mean``, that lies in a subspace."""
    plain = vectors.float() - mean.to(vectors.device)
    return (plain @ space.to(plain) @ space.to(plain).T).to(vectors.dtype)


@dataclass(frozen=True)
class SafreeSettings(GuardSettings):
    """How far the prompt is moved, and for how long."""

    reach: float = setting(
        2.0, "share of the steps that a prompt moved far is changed for; 2: all", low=0, high=10,
        step=0.1,
    )  # fmt: skip


def spaces(text: TextEncoder, concepts: ConceptSet) -> list[Space]:
    """A subspace a concept, in a text encoder of the core."""
    return [_space(text, concept, concepts.names()) for concept in concepts.concepts]


def _space(text: TextEncoder, concept: Concept, erased: tuple[str, ...]) -> Space:
    placed = [(frame + name, name) for name in concept.names() for frame in FRAMES]
    kept = text.encode([frame + word for word in kept_words(concept, erased) for frame in FRAMES])
    named = text.encode([prompt for prompt, _ in placed])
    names = [
        row[text.token_mask(prompt, name).bool()[: len(row)]]
        for row, (prompt, name) in zip(named.context, placed, strict=True)
    ]
    return Space(names, kept.rows(), named.pooled, kept.pooled)


def act(model: Model, guard: Guard) -> Act:
    """Prompts off the concepts, one after another, for the first share of the steps."""
    concepts = [_Off(space, guard.settings) for space in spaces(model.text, guard.concepts)]

    def acted(model: Model, call: Call) -> Tensor:
        cond = call.cond
        for concept in concepts:
            cond = concept.held(cond, concept.rows(cond, call.sigma, model.shift_mu))
        return call._replace(cond=cond).of(model)

    return acted


class _Off:
    """Prompts off one concept. All steps of a batch have the same ones: they are cleaned once, and
    put together anew only when the share of steps of one is over."""

    def __init__(self, space: Space, settings: SafreeSettings) -> None:
        self.space, self.settings = space, settings
        self.clean = lru_cache(maxsize=1)(self._clean)
        self.held = lru_cache(maxsize=1)(self._held)

    def rows(self, cond: Conditioning, sigma: Tensor, shift_mu: float | None) -> tuple[bool, ...]:
        """Which of the prompts (B,) are changed at noise levels ``sigma``."""
        cleaned = self.clean(cond)
        lowest = [SafreeSettings(end=float(s)).levels(shift_mu)[1] for s in cleaned.share]
        near = cleaned.near.any(1).tolist()
        return tuple(inside((2.0, low), sigma) and n for low, n in zip(lowest, near, strict=True))

    def _clean(self, cond: Conditioning) -> Cleaned:
        return self.space.clean(cond.context, cond.pooled, self.settings, cond.mask)

    def _held(self, cond: Conditioning, rows: tuple[bool, ...]) -> Conditioning:
        held = torch.tensor(rows, device=cond.context.device)
        return _where(held, self.clean(cond), cond) if any(rows) else cond


def _where(rows: Tensor, cleaned: Cleaned, cond: Conditioning) -> Conditioning:
    """Some rows (B,) of a prompt off the concept, the others as they are."""
    pooled = cond.pooled
    if pooled is not None and cleaned.pooled is not None:
        pooled = torch.where(rows[:, None], cleaned.pooled, pooled)
    context = torch.where(rows[:, None, None], cleaned.context, cond.context)
    return replace(cond, context=context, pooled=pooled)


GUARDS = (
    GuardMethod("safree", "SAFREE", "Yoon et al. 2025, arXiv 2410.12761", SafreeSettings, act),
)
