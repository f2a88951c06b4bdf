"""How near prompts come to a concept in MiniFlux's text encoder: what the limits of the word gate
are chosen by.

    PYTHONPATH=. python tools/bench/wordgate.py [--count 16]

A concept's gate reads every prompt of its exam. The way is 0 at the nearest of the words that must
stay, 1 at the name itself.
Things are split in two halves: limits are chosen on the first and hold on the second. Prints a
Markdown table: quantiles of the way, how many prompts are held wholly, and how many in part.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator

import torch

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.guards.gate import HIGH, LOW, word_gate
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.markdown import markdown
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.cases import CHOICES
from erase_core.models.flux1.text import TextEncoders

QUANTILES = (0.0, 0.02, 0.5, 0.98, 1.0)
ROLES = {
    "erased": "named",
    "companion": "named",
    "seen": "synonym",
    "held_out": "held-out synonym",
    "near": "near",
    "other": "other",
    "misspelt": "misspelt",
}


def misspelt(name: str, rng: random.Random) -> str:
    """A name with a letter left out, doubled, or swapped with the one before it."""
    i = rng.randrange(1, len(name) - 1)
    before, own, after = name[:i], name[i], name[i + 1 :]
    swapped = before[:-1] + own + before[-1] + after
    return rng.choice([before + after, before + own + own + after, swapped])


def ways(text: TextEncoders, name: str, count: int) -> Iterator[tuple[str, list[float]]]:
    """What is asked for, and the way of each such prompt, for a concept."""
    judge, rng = RecogniserJudge(), random.Random(name)
    concepts = ConceptSet((judge.concept(name),))
    (gate,) = word_gate(text, concepts)
    asked = {
        role: [question.prompt for question in questions]
        for role, questions in judge.exam(concepts, count).roles.items()
    }
    if name in CHOICES["thing"]:
        named = [prompt for prompt in asked["erased"] if name in prompt]
        asked["misspelt"] = [prompt.replace(name, misspelt(name, rng)) for prompt in named]
    for role, prompts in asked.items():
        context = text.encode(prompts).context
        way = gate.way(context)
        yield ROLES[role], way.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16, help="prompts a question")
    args = parser.parse_args()
    text, found = miniflux.load_text(), defaultdict[tuple[str, str], list[float]](list)
    things = CHOICES["thing"]
    groups = {"things, first half": things[::2], "things, second half": things[1::2]}
    groups |= {f"{kind}s": names for kind, names in CHOICES.items() if kind != "thing"}
    for group, names in groups.items():
        for name in names:
            for role, values in ways(text, name, args.count):
                found[group, role] += values
    lines = []
    for (group, role), values in found.items():
        way = torch.tensor(values)
        told = [f"{q:.2f}" for q in torch.quantile(way, torch.tensor(QUANTILES)).tolist()]
        whole, part = way >= HIGH, (way > LOW) & (way < HIGH)
        rates = [f"{100 * rows.float().mean():.1f}" for rows in (whole, part)]
        lines.append([group, role, str(len(way)), *told, *rates])
    head = ["concepts", "prompts", "count", *(f"{100 * q:.0f} %" for q in QUANTILES)]
    print(markdown([*head, "held (%)", "in part (%)"], lines))


if __name__ == "__main__":
    main()
