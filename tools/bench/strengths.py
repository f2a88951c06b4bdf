"""What an eraser in a second does at other strengths than 1, on MiniFlux.

    PYTHONPATH=. python tools/bench/strengths.py [--pictures 16] [--steps 28]
        [--concepts tiger red] [METHOD ...]

For each method, concept and strength: in how many pictures of the concept's own prompts it is
recognised, and in how many of its and of other prompts' pictures anything is. Prints a table.
"""

from __future__ import annotations

import argparse

import torch

from erase_core.concepts.sets import ConceptSet
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.markdown import markdown
from erase_core.methods.base import Task, find_method, methods
from erase_core.miniatures import miniflux

STRENGTHS = (-1.0, 0.3, 1.0, 2.0)


def row(method: str, name: str, pictures: int, steps: int) -> list[str]:
    """A method and a concept: at each strength "recognised / alive / others alive"."""
    model, judge = miniflux.load(torch.float32), RecogniserJudge()
    concepts = ConceptSet((judge.concept(name),))
    eraser = find_method(method).erase(Task(model, concepts)).eraser
    assert eraser is not None
    exam = judge.exam(concepts, pictures, seed=1)
    told = []
    for strength in STRENGTHS:
        shares = []
        for role in ("erased", "other"):
            cases = exam.roles[role][:pictures]
            drawn = model.generate(
                [case.prompt for case in cases],
                [case.seed for case in cases],
                eraser.scaled(strength),
                steps=steps,
            )
            alive = (judge.look(drawn).things.amax(1) > 0).float().mean()
            if role == "erased":
                shares.append(sum(judge.shown(drawn, cases)) / len(cases))
            shares.append(float(alive))
        told.append(" / ".join(f"{100 * share:.0f}" for share in shares))
    return [method, name, *told]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [name for name, m in methods().items() if m.product and not m.forward]
    parser.add_argument("methods", nargs="*", default=known)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--concepts", nargs="+", default=["tiger", "red"])
    args = parser.parse_args()
    head = ["Method", "Concept", *(f"strength {s:g}" for s in STRENGTHS)]
    rows = [row(m, name, args.pictures, args.steps) for m in args.methods for name in args.concepts]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
