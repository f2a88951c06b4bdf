"""``eraseanything bench``: methods side by side on MiniFlux, in tables and plots."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .judges import add_judges
from .material import add_material
from .models import add_memory, add_model, open_model, size
from .numbers import HIGHEST_SEED, STEPS, real, whole
from .output import add_overwrite, say, sentence, warn
from .progress import Bar
from .sharing import add_ray, add_workers, own_card, plain, share

if TYPE_CHECKING:
    from ..evaluate.suites.suite import Suite
    from ..processes import Shared
    from ..training.progress import NewBar

MEMORY = int(4e9)  # bytes of a card that a cell takes at most; MiniFlux is small
HELP = "measure methods of erasing side by side"
DESCRIPTION = """\
Erase with every method, examine every eraser alike, and write tables and plots. What the folder
holds already is not done again, so a benchmark can be stopped and gone on with. --workers shares it
out among several processes; a CPU is best used by one a core, each with --threads 1.

Without --methods and --concepts all of it runs: some ten hours on two CPU cores.

With --suite it examines your own model instead, without and with your erasers (--loras).
concepts: are the concept, its synonyms and everything else still recognised? i2p: what does NudeNet
find exposed in the pictures of a prompt file? coco: how well do pictures fit their prompts (CLIP),
and how natural are they (FID)?

--plan paper fills the paper's tables with your own model, beside its printed numbers. It tells the
hours first, and may be killed and begun again. docs/exams.md has every protocol."""
EXAMPLES = """\
examples:
  eraseanything bench --quick                       # a first look
  eraseanything bench --out out/bench               # everything
  eraseanything bench --methods ours ca-model --concepts dog blue --seeds 0 1
  eraseanything bench --methods ours uce --concepts dog --attacks embedding latents
  eraseanything bench --report --out out/bench      # only the tables, of what is there
  eraseanything bench --methods mine --concepts dog rose --exam 24 --beside docs/results
  eraseanything bench --concepts tiger red --methods esd-x 'esd-x lr=2e-4' 'esd-x eta=0'
  eraseanything bench --suite concepts --concepts tiger.json --loras tiger.safetensors \\
      --judge clip-vit-large-patch14 --model FLUX.1-dev
  eraseanything bench --suite i2p --prompts i2p.csv --loras nudity.safetensors \\
      --model flux1-dev.safetensors --clip-l clip_l.safetensors --t5 t5xxl.safetensors \\
      --vae ae.safetensors
  eraseanything bench --plan paper --rehearse --out out/rehearsal        # MiniFlux, minutes
  eraseanything bench --plan paper --dry-run --model FLUX.1-dev --judge clip-vit-large-patch14"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench"), metavar="DIR")
    parser.add_argument(
        "--quick", action="store_true", help="three methods on a thing and a colour"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="default: all; 'esd-x lr=2e-4 eta=0' is a row with other settings",
    )
    parser.add_argument(
        "--concepts",
        nargs="+",
        metavar="NAME",
        help="default: six of each kind; dog+rose: together; of --suite concepts a FILE.json, too",
    )
    parser.add_argument("--seeds", nargs="+", type=whole(0, HIGHEST_SEED), default=[0], metavar="S")
    parser.add_argument(
        "--attacks",
        nargs="*",
        metavar="NAME",
        help="attack the chosen erasers, too (without names: with every attack)",
    )
    parser.add_argument("--fid", action="store_true", help="FID of the chosen erasers, too")
    parser.add_argument(
        "--exam", type=whole(0, 10_000), metavar="N", help="pictures a question (default 34)"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="fill the tables up from the CSV files of another benchmark, e.g. docs/results",
    )
    parser.add_argument("--report", action="store_true", help="write the tables, measure nothing")
    parser.add_argument(
        "--threads", type=whole(1, 1024), metavar="N", help="CPU threads a process (default: all)"
    )
    add_workers(parser, "one")
    add_ray(parser)
    _add_exams(
        parser.add_argument_group("your model and your erasers (--suite concepts, i2p, coco)")
    )
    _add_plan(parser.add_argument_group("the paper's tables on your model (--plan paper)"))
    add_model(parser)
    add_memory(parser)


def _add_exams(exams: Any) -> None:
    exams.add_argument(
        "--suite", choices=("miniflux", "concepts", "i2p", "coco"), default="miniflux"
    )
    exams.add_argument("--loras", type=Path, nargs="*", default=[], metavar="FILE")
    exams.add_argument("--prompts", type=Path, metavar="FILE", help="CSV, JSON or a prompt a line")
    exams.add_argument(
        "--column", default="", metavar="NAME", help="the column of FILE that has the prompts"
    )
    add_judges(exams)
    exams.add_argument(
        "--steps", type=whole(1, STEPS), help="Euler steps (default: the model's, of FLUX.1 28)"
    )
    exams.add_argument("--guidance", type=real(0, 100), help="default: the model's, of FLUX.1 3.5")
    exams.add_argument(
        "--size", type=size, metavar="WxH", help="pixels (default 512x512; MiniFlux's own)"
    )
    add_overwrite(exams)


def _add_plan(paper: Any) -> None:
    paper.add_argument(
        "--plan", choices=("paper",), help="make every eraser, fill every table, write a card"
    )
    paper.add_argument(
        "--dry-run", action="store_true", help="only tell the hours, measured on this machine"
    )
    paper.add_argument(
        "--share",
        type=real(0, 1),
        default=1.0,
        metavar="F",
        help="of the paper's prompts and concepts",
    )
    paper.add_argument(
        "--rehearse", action="store_true", help="everything at its smallest, in minutes"
    )
    add_material(paper)


def run(args: argparse.Namespace) -> int:
    if args.plan:
        _require_extra()
        from .paper import run_paper

        return run_paper(args)
    if args.dry_run or args.rehearse or args.share != 1:
        raise EraseError("--dry-run, --rehearse and --share go with --plan paper; leave them out.")
    if args.suite == "miniflux":
        return _run_methods(args)
    from .exams import run_prompts, run_words

    return run_words(args) if args.suite == "concepts" else run_prompts(args)


def _run_methods(args: argparse.Namespace) -> int:
    _require_extra()
    from ..evaluate.report.plots import draw
    from ..evaluate.report.sheets import write_sheets
    from ..evaluate.report.tables import results
    from ..evaluate.suites.store import PARTS, read_files, read_rows, write_csv
    from ..writing import atomic

    if args.beside and not (args.beside / "cells.csv").is_file():
        raise EraseError(f"There is no cells.csv in {args.beside}; check --beside.")
    if args.exam is not None and args.exam < 2:
        raise EraseError("A question needs two pictures or more; write e.g. --exam 24.")
    if (args.out / "results.md").exists() and not (args.out / "cells").is_dir():
        raise EraseError(
            f"{args.out} has tables, but no cells that they were made of; choose another folder."
        )
    if not args.report:
        _measure(args)
    found = {part: read_rows(args.out, part, args.beside) for part in PARTS}
    for part, told in found.items():
        if told:
            write_csv(args.out / f"{part}.csv", told)
    rows, attacks, distances = found.values()
    if not rows:
        say(args, {"cells": [], "attacks": []}, f"No cell is measured in {args.out} yet.")
        return 0
    try:
        text = results(rows, attacks, distances)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EraseError(
            f"A table or cell in {args.out} lacks what a benchmark writes ({error}); remove it."
        ) from error
    with atomic(args.out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    own = read_files(args.out)
    write_sheets(args.out, {path.with_suffix(".png"): row for path, row in own.items()})
    draw(args.out, rows, attacks)
    say(args, {"cells": list(rows), "attacks": list(attacks)}, text, f"Written to {args.out}.")
    return 0


def _require_extra() -> None:
    for name in "pandas", "matplotlib":
        if find_spec(name) is None:
            raise EraseError(f'A benchmark needs {name}; run: pip install "eraseanything[bench]".')


def _measure(args: argparse.Namespace) -> None:
    """Run the cells, then the attacks, then the distances; an attack wants its cell's eraser."""
    import torch

    from ..evaluate.attacks.base import attacks, find_attack

    suite = _suite(args)
    chosen = [find_attack(name).name for name in args.attacks or attacks()]
    cells = Cells(plain(args), args.exam or suite.count)
    rounds = (
        [("run", cell) for cell in suite.cells],
        [("attack", cell, name) for cell in suite.attacked for name in chosen],
        [("frechet", cell) for cell in suite.distant],
    )
    if not args.ray and (args.workers or 1) == 1:
        if args.threads:
            torch.set_num_threads(args.threads)
        do = cells.doing(args, Bar().phase)
        for task in chain(*rounds):
            do(task)
        return
    failed = [told for tasks in rounds for told in _side_by_side(args, cells, tasks)]
    if failed:
        raise EraseError(f"{len(failed)} parts of the benchmark failed; one says: {failed[0]}")


@dataclass(frozen=True)
class Cells:
    """Parts of a benchmark as a job for processes."""

    args: argparse.Namespace
    count: int

    def open(self, number: int, shared: Shared) -> Callable[[Any, Callable[[float], None]], None]:
        do = self.doing(own_card(self.args, number), lambda label, total: lambda done: None)
        return lambda task, tell: do(task)

    def doing(self, args: argparse.Namespace, bar: NewBar) -> Callable[[Any], None]:
        """What runs a cell, an attack on one, or takes its distance."""
        from ..evaluate.attacks.base import find_attack
        from ..evaluate.judges.recogniser import RecogniserJudge
        from ..evaluate.suites.cell import Bench

        bench = Bench(open_model(args), RecogniserJudge(), args.out, self.count, bar)

        def do(task: Any) -> None:
            what, cell, *attack = task
            getattr(bench, what)(cell, *map(find_attack, attack))

        return do

    def explain(self, error: Exception) -> str:
        return sentence(error)


def _side_by_side(args: argparse.Namespace, cells: Cells, tasks: Sequence[Any]) -> Iterator[str]:
    """Do tasks in several processes; gives the sentences of those that failed."""
    if not tasks:
        return
    bar, ended = Bar().phase(f"{tasks[0][0]} of all cells", len(tasks)), 0
    for event in share(args, cells, tasks, lambda task: MEMORY):
        what, cell, *attack = tasks[event.task]
        name = " ".join([cell.method, cell.title, *attack])
        if event.kind == "lost":
            warn(f"{name} lost its process ({event.value}) and is begun again.")
        if event.kind == "failed":
            warn(f"{name}: {event.value}")
            yield event.value
        if event.kind in ("done", "failed"):
            ended += 1
            bar(ended)


def _suite(args: argparse.Namespace) -> Suite:
    from ..evaluate.suites import suite
    from ..methods.base import find_method, methods

    names = [find_method(name).name for name in args.methods or methods()]
    if args.quick:
        return suite.quick()
    if args.concepts:
        attacked, distant = args.attacks is not None, args.fid
        return suite.chosen(names, args.concepts, args.seeds, attacked=attacked, distant=distant)
    return suite.full(names)
