"""Where the words of a prompt land in the picture: attention maps along a rollout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from ..errors import EraseError
from .base import Adapter, Conditioning, Model, Probe
from .sampling import euler, finite


@dataclass(frozen=True)
class WordMaps:
    """Maps of W words over the latent patches of one picture.

    ``parts`` (S, N, W, rows, columns) float32 on the CPU, for each step and block: the mean share
    over heads, in [0, 1], of a patch's attention that falls on the word's tokens. ``latents``
    (1, C, h, w): the rollout's end, for the picture below.
    """

    parts: Tensor
    latents: Tensor

    @property
    def raw(self) -> Tensor:
        """The mean over steps and blocks, (W, rows, columns)."""
        return self.parts.mean(dim=(0, 1))

    def scaled(self, top: Tensor | None = None) -> Tensor:
        """``raw`` divided by each word's largest value and so in [0, 1].

        ``top`` (W,) gives other maxima, such as those of the maps ``before`` an erasure, so that
        both can be compared; what lies above is cut to 1.
        """
        highest = self.raw.amax(dim=(1, 2)) if top is None else top
        return (self.raw / highest.clamp_min(1e-12)[:, None, None]).clamp(0, 1)


@torch.no_grad()
def word_maps(
    model: Model,
    noise: Tensor,
    sigmas: Tensor,
    cond: Conditioning,
    tokens: Tensor,
    guidance: float | None,
    *,
    eraser: Adapter | None = None,
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    on_step: Callable[[int], None] = lambda done: None,
) -> WordMaps:
    """Roll a prompt out and average the attention that its words get on the way.

    Parameters
    ----------
    model, eraser, guidance
        The model, its eraser if any, and its guidance input.
    noise, sigmas
        Start latents (1, C, h, w) and levels (S + 1,), see :mod:`erase_core.models.sampling`.
    cond, tokens
        One encoded prompt, and its words as token masks (W, L).
    blocks, heads, steps
        Double blocks, heads and steps (0 to S - 1) to average over; None takes all.
    on_step
        Hears how many of the S steps are done; what it raises ends the rollout.

    Raises
    ------
    EraseError
        When a block, head or step does not exist, no word is given, or the model draws NaN.
    """
    probed = _chosen("block", blocks, model.config.depth)
    watched = set(_chosen("step", steps, len(sigmas) - 1))
    if not len(tokens):
        raise EraseError("There is no word to draw a map of; name at least one.")
    cond, words = cond.to(model.device), tokens[None].to(model.device)
    due = iter([step in watched for step in range(len(sigmas) - 1)])
    found: list[Tensor] = []

    def walk(x: Tensor, sigma: Tensor) -> Tensor:
        probe = Probe(tuple(probed), words) if next(due) else None
        out = model.predict(x, sigma, cond, guidance, eraser, probe=probe)
        if out.attention is not None:
            found.append(_over_heads(out.attention[0], heads).float().cpu())
        assert out.velocity is not None
        return out.velocity

    walked = euler(walk, noise.to(model.device), sigmas, lambda index, *_: on_step(index + 1))
    latents = finite(walked)
    patch = model.family.latents.patch
    grid = [-(-side // patch) for side in noise.shape[2:]]
    parts = torch.stack(found).reshape(len(found), len(probed), len(tokens), *grid)
    return WordMaps(parts, latents)


def _over_heads(attention: Tensor, heads: Sequence[int] | None) -> Tensor:
    """(blocks, W, heads, Q) -> (blocks, W, Q), the mean over the chosen heads."""
    return attention[:, :, _chosen("head", heads, attention.shape[2])].mean(dim=2)


def _chosen(what: str, wanted: Sequence[int] | None, count: int) -> list[int]:
    """``wanted``, or all of ``count``; EraseError for what is not there."""
    chosen = list(range(count)) if wanted is None else list(wanted)
    if not chosen or not all(0 <= index < count for index in chosen):
        raise EraseError(f"Choose each {what} from 0 to {count - 1}.")
    return chosen


def probe_attention(
    q: Tensor, k: Tensor, tokens: Tensor, chunk: int, mask: Tensor | None = None
) -> Tensor:
    """Exact softmax attention of queries to weighted tokens, without the whole matrix.

    ``q`` (B, heads, Q, d), ``k`` (B, heads, L + Q, d) with text keys first, ``tokens`` (B, W, L).
    ``mask`` (B, 1, 1, L + Q) says which keys are seen; None for all. Returns (B, W, heads, Q) in
    float32 or wider: ``sum_l softmax(q k^T / sqrt d)[l] tokens[w, l]``.
    """
    weights = tokens.to(torch.promote_types(q.dtype, torch.float32))[:, None].transpose(-1, -2)

    def attend(part: Tensor) -> Tensor:
        logits = (part @ k.transpose(-1, -2)).to(weights.dtype) / math.sqrt(q.shape[-1])
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        return logits.softmax(-1)[..., : tokens.shape[-1]] @ weights

    parts = q.split(chunk, dim=2)
    recompute = len(parts) > 1 and torch.is_grad_enabled()
    rows = [
        activation_checkpoint(attend, part, use_reentrant=False) if recompute else attend(part)
        for part in parts
    ]
    return torch.cat(rows, dim=2).permute(0, 3, 1, 2)
