"""A learned token embedding: textual inversion against the erased model.

Gal et al., *An Image is Worth One Word*, ICLR 2023 (arXiv 2208.01618), turned on erased models by
Pham et al., *Circumventing Concept Erasure Methods*, ICLR 2024 (arXiv 2308.01508). What stands in
the prompt where the concept's name stood minimises ``|| v_D(x_t, c*) - (eps - x_0) ||^2`` on a few
pictures of the concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...models.base import Conditioning, OpenText
from ..scores import Rate
from .base import Attack, Target

SHOTS, STEPS, BATCH = 8, 200, 8
TOKENS = 4  # vectors that stand for the concept
LR = 0.05  # of Adam, in units of the mean size of a token embedding's entries


class PseudoWord:
    """Token embeddings (TOKENS, D) in a word's place, and a change (P,) of the pooled vector, None
    where there is none, which is pooled from the prompt as it is."""

    def __init__(self, text: OpenText, word: str) -> None:
        self.text, self.word, self.table = text, word, text.table
        ids = text.tokenizer(word, add_special_tokens=False)["input_ids"]
        start = self.table[[ids[i % len(ids)] for i in range(TOKENS)]]
        self.vectors = nn.Parameter(start.clone())
        pooled = text.embed([word]).pooled
        self.pooled = None if pooled is None else nn.Parameter(torch.zeros_like(pooled[0]))

    def groups(self) -> list[dict[str, Any]]:
        """What is learned, with Adam's rates."""
        vectors = {"params": [self.vectors], "lr": LR * self.table.abs().mean().item()}
        pooled = [] if self.pooled is None else [{"params": [self.pooled], "lr": LR}]
        return [vectors, *pooled]

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts that hold the word, with the learned vectors in its place."""
        found = self.text.states(torch.stack([self._put(p) for p in prompts]))
        pooled = self.text.embed(prompts).pooled
        if pooled is None or self.pooled is None:
            return found
        return replace(found, pooled=pooled + self.pooled)

    def _put(self, prompt: str) -> Tensor:
        """The prompt's embeddings (length, D), the vectors where the word stands first."""
        ids = self.text.tokens([prompt])[0]
        mask = self.text.token_mask(prompt, self.word).tolist()
        start = mask.index(1.0)
        end = start + (mask[start:] + [0.0]).index(0.0)
        row = self.table[ids.to(self.table.device)]
        padding = row[-1:].expand(end - start, -1)
        return torch.cat([row[:start], self.vectors, row[end:], padding])[: len(row)]


def learn(target: Target) -> PseudoWord:
    """The pseudo-word that the erased model draws the attacker's pictures with."""
    shots = target.shots(SHOTS)
    prompts = [case.prompt for case in shots.cases]
    word = PseudoWord(target.encoders, target.concept)
    optimiser = torch.optim.Adam(word.groups())
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    generator = torch.Generator().manual_seed(target.seed)
    for step in range(STEPS):
        rows = torch.randint(len(prompts), (BATCH,), generator=generator).tolist()
        cond = word.encode([prompts[row] for row in rows]).to(target.device)
        loss = target.flow_matching(shots.latents[rows], cond, target.eraser, generator)
        optimiser.zero_grad()
        loss.backward(inputs=learned)
        optimiser.step()
        target.on_step(step + 1, STEPS)
    return word


def run(target: Target) -> Rate:
    word, made = learn(target), target.cases()
    with torch.no_grad():
        cond = word.encode([case.prompt for case in made]).to(target.device)
    return target.rate(cond, target.start(made), target.eraser, made)


ATTACKS = (Attack("embedding", "Learned embedding", "Pham et al., ICLR 2024", run),)
