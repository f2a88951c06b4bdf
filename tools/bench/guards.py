"""What a guard keeps out and what it leaves alone, over many concepts of MiniFlux.

    PYTHONPATH=. python tools/bench/guards.py word-gate dve [--count 4] [--things 30] [--pairs 9]

Concepts are the things of the half that the word gate's limits were not chosen on. Gates hold back
an eraser by `uce`. Prints a Markdown table, a row for each guard. First: in how many pictures the
concept is recognised, for each question. Then: how many pictures without the concept stay bit for
bit. Last: how long a picture takes that names the concept, and one that does not; without the guard
it is 1.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from wordgate import misspelt

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.guards.base import Guard, find_guard
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.markdown import markdown
from erase_core.methods.base import Task, find_method
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.cases import CHOICES, Case
from erase_core.models.base import Model

ASKED = {"erased": "named", "held_out": "held-out synonym", "misspelt": "misspelt"}
LEFT = {"near": "near kin", "other": "other"}
TIMED = {"erased": "time, open", "other": "time, shut"}  # of a picture, 1 without the guard
JUDGE = RecogniserJudge()


def guarded(model: Model, method: str, concepts: ConceptSet) -> Model:
    """The model under a guard; a gate's eraser is solved for here."""
    guard, tensors = find_guard(method), dict[str, Tensor]()
    if guard.eraser:
        eraser = find_method("uce").erase(Task(model, concepts)).eraser
        assert eraser is not None
        tensors = eraser.tensors()
    return Guard(guard, concepts, guard.settings(), tensors).wrap(model)


def questions(concepts: ConceptSet, count: int) -> dict[str, Sequence[Case]]:
    (concept,) = concepts.concepts
    found, rng = dict(JUDGE.exam(concepts, count).roles), random.Random(concept.name)
    named = [q for q in found["erased"] if concept.name in q.prompt]
    found["misspelt"] = [
        replace(q, prompt=q.prompt.replace(concept.name, misspelt(concept.name, rng)))
        for q in named
    ]
    return found


def draw(model: Model, asked: Sequence[Case], steps: int) -> Tensor:
    return model.generate([q.prompt for q in asked], [q.seed for q in asked], steps=steps)


def slower(model: Model, drawn: Model, asked: Sequence[Case], pairs: int) -> float:
    """Seconds with the guard over seconds without, one after the other, the median of pairs."""

    def seconds(which: Model) -> float:
        began = perf_counter()
        draw(which, asked[:2], 20)
        return perf_counter() - began

    return median(seconds(drawn) / seconds(model) for _ in range(pairs))


def measure(
    models: Mapping[str, Model], asked: Mapping[str, Sequence[Case]], steps: int
) -> Counter[tuple[str, str]]:
    """By model and question: pictures that show the concept, or that are as the first model's."""
    found = Counter[tuple[str, str]]()
    for role in ASKED:
        for name, model in models.items():
            found[name, role] += sum(JUDGE.shown(draw(model, asked[role], steps), asked[role]))
    for role in LEFT:
        plain, *others = (draw(model, asked[role], 4) for model in models.values())
        for name, drawn in zip([*models][1:], others, strict=True):
            found[name, role] += int((drawn == plain).flatten(1).all(1).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--count", type=int, default=4, help="pictures a question, 2 or more")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--things", type=int, default=30, help="how many of the thirty")
    parser.add_argument("--pairs", type=int, default=9, help="drawings to time by; 0: none")
    args = parser.parse_args()
    plain = miniflux.load(torch.float32)
    found, asked_for = Counter[tuple[str, str]](), Counter[str]()
    times = {(method, role): list[float]() for method in args.methods for role in TIMED}
    for name in CHOICES["thing"][1::2][: args.things]:
        concepts = ConceptSet((JUDGE.concept(name),))
        asked = questions(concepts, args.count)
        models = {method: guarded(plain, method, concepts) for method in args.methods}
        found += measure({"untouched": plain, **models}, asked, args.steps)
        asked_for += Counter({role: len(cases) for role, cases in asked.items()})
        for method, role in times if args.pairs else ():
            times[method, role].append(slower(plain, models[method], asked[role], args.pairs))
        print(name, dict(found), flush=True)

    def counts(name: str, roles: Iterable[str]) -> list[str]:
        return [f"{found[name, role]} of {asked_for[role]}" for role in roles]

    def time(method: str, role: str) -> str:
        found = times[method, role]
        return f"{median(found):.2f}" if found else ""

    rows = [["untouched", *counts("untouched", ASKED), *[""] * 4]]
    for method in args.methods:
        said = (time(method, role) for role in TIMED)
        rows.append([method, *counts(method, (*ASKED, *LEFT)), *said])
    print(markdown(["Guard", *ASKED.values(), *LEFT.values(), *TIMED.values()], rows))


if __name__ == "__main__":
    main()
