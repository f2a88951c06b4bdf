"""An adversarial suffix: a few tokens after the prompt that wake the concept in the erased model.

What is sought follows Chin et al., *Prompting4Debugging*, ICML 2024 (arXiv 2309.06135), and its use
at chosen sampling steps Zhang et al., *UnlearnDiffAtk* ("To Generate or Not?"), ECCV 2024 (arXiv
2310.11868): for every picture, tokens s with which the erased model moves as the untouched one,

    min_s  mean_k || v_D(x_k, [c, s], t_k) - v_o(x_k, c, t_k) ||^2,

x_k the states of the untouched model's sampling at the attacked steps k. How it is sought is greedy
coordinate gradient (Zou et al., arXiv 2307.15043): the gradient at the suffix's embeddings, times
the embedding matrix, foretells what every token in every place would change; of the most promising
exchanges a few are tried and the best is made. A pooled vector is that without the suffix.

The soft suffix is the same with embeddings that need not be a token's, found by Adam. Free vectors
can do what tokens can; with a small vocabulary, as MiniFlux's of 391 tokens, they can do far more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...models.base import Conditioning
from ..scores import Rate
from .base import Attack, Target

TOKENS = 5  # as UnlearnDiffAtk's perturbation of objects has it, within 3 to 5
ROUNDS, CANDIDATES, TOP = 16, 12, 64
SOFT, LR = 150, 0.1  # steps of Adam; its rate in units of the mean size of an embedding's entries
PASS = 48  # rows of a forward pass
WITHOUT = -1e4  # below any gain: special tokens are never taken


@dataclass(frozen=True)
class Search:
    """What the suffixes of N prompts are judged by.

    ``ids`` (N, L) are the prompts' tokens with room for a suffix at ``slots`` (N, TOKENS); ``cond``
    the prompts without it; ``x`` and ``wanted`` (K, N, C, h, w) are the states and the velocities
    of the untouched model at ``sigmas`` (K,).
    """

    target: Target
    ids: Tensor
    slots: Tensor
    cond: Conditioning
    x: Tensor
    wanted: Tensor
    sigmas: Tensor

    @classmethod
    def of(cls, target: Target, steps: tuple[int, ...]) -> Search:
        """The cases' prompts with an empty suffix, and the untouched model's first steps."""
        text, made = target.encoders, target.cases()
        ids, end = text.tokens([case.prompt for case in made]), text.tokenizer.eos_token_id
        ends = (ids == end).int().argmax(1)
        slots = (ends.clamp(max=text.length - TOKENS - 1))[:, None] + torch.arange(TOKENS)
        rows = torch.arange(len(made))
        ids[rows, slots[:, -1] + 1] = end
        filler = text.tokenizer(",", add_special_tokens=False)["input_ids"][-1]
        ids = ids.scatter(1, slots, filler)
        cond = target.encode(made)
        states, wanted = trajectory(target, cond, target.start(made), steps)
        return cls(target, ids, slots, cond, states, wanted, target.levels[list(steps)])

    def encode(self, embeddings: Tensor, rows: Tensor) -> Conditioning:
        """Prompts ``rows`` (B,) as token embeddings (B, L, D), on the model's device."""
        found = self.target.encoders.states(embeddings).to(self.target.device)
        return replace(found, pooled=self.cond.select(rows).pooled)

    def losses(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """The loss (B,) of prompts ``rows`` (B,) as token embeddings (B, L, D)."""
        cond = self.encode(embeddings, rows)
        parts = [
            (self.target.velocity(x[rows], sigma, cond, self.target.eraser) - wanted[rows])
            .square()
            .mean((1, 2, 3))
            for x, wanted, sigma in zip(self.x, self.wanted, self.sigmas, strict=True)
        ]
        return torch.stack(parts).mean(0).cpu()

    @property
    def table(self) -> Tensor:
        """The embeddings of all tokens, (V, D)."""
        return self.target.encoders.table

    @torch.no_grad()
    def score(self, ids: Tensor, rows: Tensor) -> Tensor:
        """The loss (B,) of token ids (B, L) for the prompts ``rows`` (B,)."""
        parts = zip(ids.split(PASS), rows.split(PASS), strict=True)
        return torch.cat([self.losses(self.table[i], r) for i, r in parts])

    def gains(self, ids: Tensor) -> Tensor:
        """What each token in each place promises to take off the loss: (N, TOKENS, V)."""
        embeddings = self.table[ids].requires_grad_()
        rows = torch.arange(len(ids))
        self.losses(embeddings, rows).sum().backward(inputs=[embeddings])
        assert embeddings.grad is not None
        slope = embeddings.grad[rows[:, None], self.slots]
        now = self.table[ids[rows[:, None], self.slots]]
        gains = (slope * now).sum(-1, keepdim=True) - slope @ self.table.T
        gains[..., self.target.encoders.tokenizer.all_special_ids] = WITHOUT
        return gains.cpu()


Seek = Callable[[Target, Search], Tensor]


@torch.no_grad()
def trajectory(
    target: Target, cond: Conditioning, x: Tensor, steps: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The untouched model's states and velocities at ``steps``, both (K, N, C, h, w)."""
    states, moves = [], []
    for index in range(max(steps) + 1):
        v = target.velocity(x, target.levels[index], cond, None)
        if index in steps:
            states.append(x)
            moves.append(v)
        x = x + (target.levels[index + 1] - target.levels[index]) * v
    return torch.stack(states), torch.stack(moves)


def improve(
    search: Search, ids: Tensor, best: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One round: each prompt's best of CANDIDATES exchanges, if it lowers the loss ``best``."""
    count, vocabulary = len(ids), len(search.table)
    promising = search.gains(ids).flatten(1).topk(TOP).indices  # (N, TOP)
    picks = torch.stack([torch.randperm(TOP, generator=rng)[:CANDIDATES] for _ in range(count)])
    flat = promising.gather(1, picks)
    slots = search.slots.gather(1, flat // vocabulary)
    tried = ids[:, None].repeat(1, CANDIDATES, 1)
    tried.scatter_(2, slots[..., None], (flat % vocabulary)[..., None])
    rows = torch.arange(count).repeat_interleave(CANDIDATES)
    losses, choice = search.score(tried.flatten(0, 1), rows).view(count, -1).min(1)
    better = losses < best
    ids = torch.where(better[:, None], tried[torch.arange(count), choice], ids)
    return ids, torch.where(better, losses, best)


def find(target: Target, search: Search) -> tuple[Tensor, Tensor]:
    """The prompts with their suffixes, (N, L), and their losses (N,)."""
    rng = torch.Generator().manual_seed(target.seed)
    ids, best = search.ids, search.score(search.ids, torch.arange(len(search.ids)))
    for step in range(ROUNDS):
        ids, best = improve(search, ids, best, rng)
        target.on_step(step + 1, ROUNDS)
    return ids, best


def tokens(target: Target, search: Search) -> Tensor:
    """The prompts with suffixes of tokens, as token embeddings (N, L, D)."""
    return search.table[find(target, search)[0]]


def soft(target: Target, search: Search) -> Tensor:
    """The prompts with suffixes of free vectors, as token embeddings (N, L, D)."""
    rows, plain = torch.arange(len(search.ids)), search.table[search.ids]
    places = rows[:, None], search.slots
    vectors = nn.Parameter(plain[places].clone())
    optimiser = torch.optim.Adam([vectors], lr=LR * search.table.abs().mean().item())
    for step in range(SOFT):
        optimiser.zero_grad()
        loss = search.losses(plain.index_put(places, vectors), rows).sum()
        loss.backward(inputs=[vectors])
        optimiser.step()
        target.on_step(step + 1, SOFT)
    return plain.index_put(places, vectors.detach())


def _run(steps: tuple[int, ...], seek: Seek) -> Callable[[Target], Rate]:
    def run(target: Target) -> Rate:
        search, made = Search.of(target, steps), target.cases()
        embeddings = seek(target, search)
        with torch.no_grad():
            cond = search.encode(embeddings, torch.arange(len(made)))
        return target.rate(cond, target.start(made), target.eraser, made)

    return run


SOURCE = "Chin et al., ICML 2024; Zhang et al., ECCV 2024"
ATTACKS = (
    Attack("suffix-0", "Adversarial suffix, step 0", SOURCE, _run((0,), tokens)),
    Attack("suffix-012", "Adversarial suffix, steps 0, 1, 2", SOURCE, _run((0, 1, 2), tokens)),
    Attack("suffix-soft", "Soft suffix, step 0", SOURCE, _run((0,), soft)),
)
