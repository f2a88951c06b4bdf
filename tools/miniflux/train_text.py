"""Teach the T5-shaped encoder, before the transformer, who stands where: from captions alone.

As FLUX.1 reads with a T5 that knew its language, so does MiniFlux. A transformer trained together
with an encoder that starts from nothing learned all things, and never which of two stands left.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from data import read_scenes
from model import CONFIG, MiniFlux
from safetensors.torch import save_file
from torch import Tensor, nn
from train_flux import LONG, SHORT, learning_rate, make_optimisers
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from erase_core.miniatures.miniflux.captions import Scene, caption, varied
from erase_core.miniatures.miniflux.world import RELATIONS, THINGS
from erase_core.models.flux1.text import tokenize
from erase_core.writing import atomic

SIDES = RELATIONS[:4]  # left of, right of, above, below: the places of a pair's first thing
BATCH = 128


class Reader(nn.Module):
    """Which thing is left, right, above, below: four questions put to an encoder's states."""

    def __init__(self, t5: T5EncoderModel) -> None:
        super().__init__()
        width = CONFIG.context_in_dim
        self.t5 = t5
        self.questions = nn.Parameter(torch.randn(len(SIDES), width) / 2)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.thing = nn.Linear(width, len(THINGS))

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) to logits (B, 4, things)."""
        states = self.t5(input_ids=ids).last_hidden_state
        questions = self.questions.expand(len(ids), -1, -1)
        return self.thing(self.attention(questions, states, states, need_weights=False)[0])


@torch.no_grad()
def look_both_ways(t5: T5EncoderModel) -> None:
    """Let the first head see what comes before a token and the second what follows it, the nearer
    the better. The encoder does not find order by itself: without this, 450 steps from trained
    weights left it at chance."""
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = len(bias) // 2  # buckets of distances, first those to earlier tokens
    earlier, later = slice(half), slice(half, None)
    for head, seen, hidden in ((0, earlier, later), (1, later, earlier)):
        bias[seen, head] = 2 - 0.3 * torch.arange(half)
        bias[hidden, head] = -6
        bias[0, head] = 0  # the token itself


def answers(scenes: list[Scene]) -> Tensor:
    """The things (B, 4) at each side; -100, which cross-entropy leaves out, where there is none."""
    told = torch.full((len(scenes), len(SIDES)), -100)
    for row, scene in enumerate(scenes):
        side = SIDES.index(scene.relation)
        told[row, side], told[row, side ^ 1] = scene.things[0], scene.things[1]
    return told


def train(folder: Path, steps: int, seed: int, t5: T5EncoderModel | None = None) -> None:
    """Write ``text.safetensors``, an encoder that knows the order of two things."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    clip = PreTrainedTokenizerFast.from_pretrained(folder / "clip_l_tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "t5xxl_tokenizer")
    reader = Reader(t5 or MiniFlux(clip, tokenizer).t5)
    look_both_ways(reader.t5)
    optimisers = make_optimisers(reader, 1.5e-3)
    pairs = [s for s in read_scenes(folder / "scenes.json") if s.relation in SIDES]
    for step in range(steps):
        drawn = rng.choices(pairs, k=BATCH)
        length = SHORT if step < steps * 0.8 else LONG
        ids = tokenize(tokenizer, [caption(varied(s, rng), rng) for s in drawn], length)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(
                reader(ids).flatten(0, 1).float(), answers(drawn).flatten()
            )
        reader.zero_grad()
        loss.backward()
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, 1.5e-3)
            optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"text {step + 1}/{steps} loss {loss.item():.3f}", flush=True)
    with atomic(folder / "text.safetensors") as temporary:
        save_file({k: v.clone() for k, v in reader.t5.state_dict().items()}, temporary)
