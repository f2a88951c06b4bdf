"""A learned token embedding: textual inversion against the erased model.

Gal et al., *An Image is Worth One Word*, ICLR 2023 (arXiv 2208.01618), turned on erased models by
Pham et al., *Circumventing Concept Erasure Methods*, ICLR 2024 (arXiv 2308.01508). What stands in
the prompt where the concept's name stood minimises ``|| v_D(x_t, c*) - (eps - x_0) ||^2`` on a few
pictures of the concept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.base import Conditioning
from ...models.flux1.text import TextEncoders, tokenize
from ..scores import Rate
from .base import Attack, Target

SHOTS, STEPS, BATCH = 8, 200, 8
TOKENS = 4  # vectors that stand for the concept
LR = 0.05  # of Adam, in units of the mean size of a token embedding's entries


class PseudoWord:
    """T5 embeddings (TOKENS, D) in a word's place, and a change (P,) of the pooled vector.

    CLIP reads the prompt as it is, with the word.
    """

    def __init__(self, text: TextEncoders, word: str) -> None:
        self.text, self.word = text, word
        self.table: Tensor = text.t5.get_input_embeddings().weight.detach()
        ids = text.t5_tokenizer(word, add_special_tokens=False)["input_ids"]
        start = self.table[[ids[i % len(ids)] for i in range(TOKENS)]]
        self.vectors = nn.Parameter(start.clone())
        self.pooled = nn.Parameter(torch.zeros_like(text.embed([word]).pooled[0]))

    def parameters(self) -> list[nn.Parameter]:
        return [self.vectors, self.pooled]

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts that hold the word, with the learned vectors in its place."""
        context = self.text.t5(inputs_embeds=torch.stack([self._put(p) for p in prompts]))
        return Conditioning(
            context.last_hidden_state, self.text.embed(prompts).pooled + self.pooled
        )

    def _put(self, prompt: str) -> Tensor:
        """The prompt's embeddings (length, D), the vectors where the word stands first."""
        ids = tokenize(self.text.t5_tokenizer, [prompt], self.text.t5_length)[0]
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
    size = word.table.abs().mean().item()
    optimiser = torch.optim.Adam(
        [{"params": [word.vectors], "lr": LR * size}, {"params": [word.pooled], "lr": LR}]
    )
    generator = torch.Generator().manual_seed(target.seed)
    for step in range(STEPS):
        rows = torch.randint(len(prompts), (BATCH,), generator=generator).tolist()
        cond = word.encode([prompts[row] for row in rows]).to(target.device)
        loss = target.flow_matching(shots.latents[rows], cond, target.eraser, generator)
        optimiser.zero_grad()
        loss.backward(inputs=word.parameters())
        optimiser.step()
        target.on_step(step + 1, STEPS)
    return word


def run(target: Target) -> Rate:
    word, made = learn(target), target.cases()
    with torch.no_grad():
        cond = word.encode([case.prompt for case in made]).to(target.device)
    return target.rate(cond, target.start(made), target.eraser, made)


ATTACKS = (Attack("embedding", "Learned embedding", "Pham et al., ICLR 2024", run),)
