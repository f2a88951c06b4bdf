"""An eraser that grows by one thing after another, against one training of all: a Markdown table.

    PYTHONPATH=. python tools/bench/extend.py [--things 10] [--count 48] [--out out/extend]

Every row is an eraser of MiniFlux: its iterations, Acc_e of all that it erases, Acc_g of their
synonyms, Acc_ir of all else, with the untouched model's in brackets. What the folder holds is used
again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from erase_core import api
from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.earlier import Earlier
from erase_core.erasers.load import load
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.marks import Marks
from erase_core.evaluate.suites.suite import SEVERAL
from erase_core.methods.again import day_made
from erase_core.methods.base import find_method
from erase_core.models.base import Model
from erase_core.tensors import read_metadata, read_tensors
from erase_core.training.memory import in_place

METHOD = find_method("eraseanything")
HEADINGS = ("Erased", "Iterations", "Acc_e", "Acc_g", "Acc_ir")


def train(model: Model, concepts: ConceptSet, path: Path, args: argparse.Namespace) -> Path:
    """An eraser of these concepts, from the one before where there is one."""
    earlier = None
    if args.before:
        earlier = Earlier.read(*read_tensors(args.before), args.before.name, model, METHOD.name)
        concepts = earlier.growing_by(concepts)
    settings = METHOD.suited(model, concepts, args.preset, {}, earlier)
    if not day_made(path, model, METHOD, concepts, settings, 0, earlier):
        order = api.Order(concepts, METHOD.name, args.preset, earlier=earlier)
        api.erase(model, order, path, place=in_place)
    return path


def row(model: Model, names: tuple[str, ...], path: Path, title: str, count: int) -> str:
    """A line of the table."""
    judge = RecogniserJudge()
    concepts = ConceptSet.together(map(judge.concept, names))
    _, before, after = api.examine(model, concepts, load(path, model), judge, count)
    told = zip(rates(after), rates(before), strict=True)
    cells = [title, read_metadata(path)["erase.steps"], *(f"{a} ({b})" for a, b in told)]
    return f"| {' | '.join(cells)} |"


def rates(marks: Marks) -> list[str]:
    """In percent: of the erased, of their synonyms, of all else."""
    found = (marks.rates["erased"], marks.acc_g, marks.acc_ir)
    return [f"{100 * rate.value:.0f}" if rate else "–" for rate in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--things", type=int, default=10)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--out", type=Path, default=Path("out/extend"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, names, args.before = api.open_model(), SEVERAL[: args.things], None
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    for end, name in enumerate(names, 1):
        path, new = args.out / f"{end:02}.safetensors", RecogniserJudge.concept(name)
        args.before = train(model, ConceptSet((new,)), path, args)
        title = f"{'then ' if end > 1 else ''}{name}"
        print(row(model, names[:end], path, title, args.count), flush=True)
    args.before, path = None, args.out / f"all-{len(names)}.safetensors"
    train(model, ConceptSet.together(map(RecogniserJudge.concept, names)), path, args)
    print(row(model, names, path, f"all {len(names)} at once", args.count), flush=True)


if __name__ == "__main__":
    main()
