"""How far closed forms move what stays: SPEED's claim beside UCE.

    PYTHONPATH=. python tools/bench/moved.py [METHOD ...]

First on MiniFlux, in wordings that nobody solved for: a concept's words, and those of all things
that stay. Then on random states of FLUX.1's true widths, where 100 concepts can go: there what
stays is what was solved for. Prints a table: what is left of the way from the concept to the anchor
behind ``txt_in``, and how far what stays is moved. Both are shares of the squared way.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from instant import make_task
from torch import Tensor

from erase_core.concepts.sets import Bands, ConceptSet
from erase_core.erasers.edit import WeightEdit
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.markdown import markdown
from erase_core.evaluate.suites.suite import SEVERAL
from erase_core.methods.base import Task, find_method
from erase_core.methods.closed import ClosedSettings, Inputs, read, spared, weight_of
from erase_core.miniatures import miniflux

MINI = (1, 10, 40)  # things; MiniFlux draws 60
TRUE = (1, 10, 100)
MODULE = "txt_in"


def shares(weight: Tensor, change: Tensor, asked: Inputs) -> tuple[float, float]:
    """What is left of the way, and how far what stays is moved."""
    way = ((asked.new - asked.old) @ weight.T).square().sum(1).mean()
    missed = (asked.old @ (weight + change).T - asked.new @ weight.T).square().sum(1).mean()
    moved = (asked.kept @ change.T).square().sum(1).mean()
    return float(missed / way), float(moved / way)


def told(task: Task, asked: Task, method: str) -> str:
    """Both shares of a method, solved for ``task`` and looked at in ``asked``."""
    made = find_method(method).erase(task).eraser
    assert isinstance(made, WeightEdit)
    settings = spared(ClosedSettings(prompts=8), len(asked.concepts.concepts))
    inputs = read(asked, settings, ["text_in"])[MODULE].double()
    weight = weight_of(task.model, MODULE).double()
    left, moved = shares(weight, made.changes[MODULE].detach().double(), inputs)
    return f"{left:.3f} / {moved:.3f}"


def mini_tasks(count: int) -> tuple[Task, Task]:
    """So many things to be erased; and the same in the exam's wordings, beside all that stays."""
    judge, model = RecogniserJudge(), miniflux.load(torch.float32)
    things = judge.others("tiger")
    names = (*SEVERAL, *(name for name in things if name not in SEVERAL))[:count]
    concepts = ConceptSet.together(map(judge.concept, names))
    left = [name for name in [*things, "tiger"] if name not in names]
    asked = []
    for concept in concepts.concepts:
        prompts = tuple(dict.fromkeys(case.prompt for case in judge.cases([concept.name], 16, 1)))
        anchor = concept.anchor
        stays = Bands(mid=(anchor,), none=tuple(name for name in left if name != anchor))
        asked.append(replace(concept, synonyms=(), sentences=prompts, irrelevant=stays))
    return Task(model, concepts), Task(model, ConceptSet(tuple(asked)))


def rows(methods: Sequence[str]) -> Iterator[list[str]]:
    """A line for each number of concepts, on either model."""
    for count in MINI:
        task, asked = mini_tasks(count)
        yield ["MiniFlux", str(count), *(told(task, asked, m) for m in methods)]
    for count in TRUE:
        with tempfile.TemporaryDirectory() as states:
            task = make_task(count, Path(states))
            yield ["true widths", str(count), *(told(task, task, m) for m in methods)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=["uce", "speed"])
    args = parser.parse_args()
    print(markdown(["Model", "Concepts", *args.methods], []))
    for row in rows(args.methods):
        print(markdown(row, []).splitlines()[0], flush=True)


if __name__ == "__main__":
    main()
