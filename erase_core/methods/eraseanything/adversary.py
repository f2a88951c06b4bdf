"""Adversarial prompts for the erase step: what would bring the concept back is erased, too.

Receler (Huang et al., ECCV 2024, arXiv 2311.17717) and R.A.C.E. (Kim et al., ECCV 2024, arXiv
2405.16341) perturb the encoded prompt anew in every erase step. Here the adversaries live on while
the student learns, so that each has about the time that an attacker would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.base import Conditioning
from ...training.checkpoint import pack_optimiser, unpack_optimiser

TOKENS = 4  # rows of the context that an adversary fills
LR = 0.05  # of Adam, in units of the mean size of what is changed
SPREAD = 0.5  # of the noise at the start, in units of the words' own spread
LIFE = 25  # steps, times the number of adversaries: then one begins anew


class Adversaries:
    """Pseudo-words for one concept, as many as a batch has rows.

    Each is TOKENS rows of the context, put over the padding at its end, and a change of the pooled
    vector, if there is one. (To Flux a token's place means nothing: all text sits at position 0.)
    They start from the concept's own rows plus noise and move by Adam toward

        ``min_a || v_D(x_t, [c_un, a]) - v_o(x_t, c_un) ||^2``.

    Parameters
    ----------
    words
        Context rows of the concept's tokens in any prompts, (N, D).
    cond
        Prompts of the concept, for the sizes of their vectors.
    count, seed, device
        Of the adversaries; the device is the student's.
    """

    def __init__(
        self, words: Tensor, cond: Conditioning, count: int, seed: int, device: torch.device
    ) -> None:
        self.words = words.float()
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.rows = nn.Parameter(torch.stack([self._fresh() for _ in range(count)]).to(device))
        self.learned = {"rows": self.rows}
        sizes = [self.words.abs().mean().item()]
        if cond.pooled is not None:
            pooled = torch.zeros(count, cond.pooled.shape[1], device=device)
            self.learned["pooled"] = nn.Parameter(pooled)
            sizes.append(cond.pooled.float().abs().mean().item())
        self.optimiser = torch.optim.Adam(
            [
                {"params": [parameter], "lr": LR * size}
                for parameter, size in zip(self.learned.values(), sizes, strict=True)
            ]
        )

    def join(self, cond: Conditioning) -> Conditioning:
        """The prompts (at most as many as adversaries) with one each."""
        rows = self.rows[: len(cond)].to(cond.context)
        pooled = cond.pooled
        if pooled is not None:
            pooled = pooled + self.learned["pooled"][: len(cond)].to(pooled)
        mask = cond.mask
        if mask is not None:
            mask = torch.cat([mask[:, :-TOKENS], mask.new_ones(len(mask), TOKENS)], dim=1)
        context = torch.cat([cond.context[:, :-TOKENS], rows], dim=1)
        return replace(cond, context=context, pooled=pooled, mask=mask)

    def learn(self, student: Tensor, concept: Tensor) -> None:
        """A step toward ``concept``, the base model's velocity; the graph of ``student`` stays."""
        loss = F.mse_loss(student, concept)
        learned = list(self.learned.values())
        found = torch.autograd.grad(loss, learned, retain_graph=True)
        for parameter, gradient in zip(learned, found, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        self.step += 1
        if self.step % LIFE == 0:
            self._begin_anew(self.step // LIFE % len(self.rows))

    def state(self, prefix: str) -> dict[str, Tensor]:
        """What a checkpoint keeps, its names beginning with ``prefix``."""
        learned = {f"{prefix}{name}": p.detach() for name, p in self.learned.items()}
        return (
            pack_optimiser(f"{prefix}adam", self.optimiser)
            | learned
            | {
                f"{prefix}generator": self.generator.get_state(),
                f"{prefix}step": torch.tensor(self.step),
            }
        )

    @torch.no_grad()
    def load_state(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        for name, parameter in self.learned.items():
            parameter.copy_(tensors[f"{prefix}{name}"])
        self.generator.set_state(tensors[f"{prefix}generator"])
        self.step = int(tensors[f"{prefix}step"])
        unpack_optimiser(f"{prefix}adam", self.optimiser, tensors)

    @torch.no_grad()
    def _begin_anew(self, which: int) -> None:
        for parameter in self.learned.values():
            parameter[which] = 0
        self.rows[which] = self._fresh().to(self.rows)
        for moments in self.optimiser.state.values():
            moments["exp_avg"][which] = 0
            moments["exp_avg_sq"][which] = 0

    def _fresh(self) -> Tensor:
        rows = self.words[torch.randint(len(self.words), (TOKENS,), generator=self.generator)]
        noise = torch.randn(rows.shape, generator=self.generator)
        return rows + SPREAD * self.words.std() * noise
