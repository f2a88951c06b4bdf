"""``eraseanything bench``: methods side by side on MiniFlux, in tables and plots."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EraseError
from .models import add_device, open_miniflux
from .output import say, warn
from .progress import Bar

if TYPE_CHECKING:
    from ..bench.report import Row
    from ..bench.suite import Suite

HELP = "measure methods of erasing side by side"
DESCRIPTION = """\
Erase with every method, examine every eraser alike, and write tables and plots. What is done
already in the folder is kept, so a benchmark can be stopped, gone on with, and split over several
processes with --part (one with --threads 1 a core is the best use of a CPU).

Without --methods and --concepts all of it runs: about 8 hours on two CPU cores."""
EXAMPLES = """\
examples:
  eraseanything bench --quick                       # ten minutes, for a look
  eraseanything bench --out out/bench               # everything
  eraseanything bench --methods ours ca-model --concepts dog blue --seeds 0 1
  eraseanything bench --report --out out/bench      # only the tables, of what is there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench"), metavar="DIR")
    parser.add_argument(
        "--quick", action="store_true", help="three methods on a thing and a colour"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--concepts", nargs="+", metavar="NAME", help="default: six of each kind")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S")
    parser.add_argument("--attacks", action="store_true", help="attack the chosen erasers, too")
    parser.add_argument("--exam", type=int, metavar="N", help="pictures a question (default 34)")
    parser.add_argument("--report", action="store_true", help="write the tables, measure nothing")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="only the I-th of N shares"
    )
    add_device(parser)


def _part(text: str) -> tuple[int, int]:
    """ "1/2" as (1, 2)."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is no share; write e.g. 1/2")
    return int(match[1]), int(match[2])


def run(args: argparse.Namespace) -> int:
    from ..bench.report import read_rows, results, write_csv
    from ..files import atomic

    if not args.report:
        _measure(args)
    rows, attacks = read_rows(args.out), read_rows(args.out, "attacks")
    text = results(rows, attacks, read_rows(args.out, "frechet"))
    with atomic(args.out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_csv(args.out / "cells.csv", rows)
    if attacks:
        write_csv(args.out / "attacks.csv", attacks)
    _plot(args, rows, attacks)
    say(args, {"cells": list(rows), "attacks": list(attacks)}, text, f"Written to {args.out}.")
    return 0


def _measure(args: argparse.Namespace) -> None:
    """Run this process's share of the cells, then of the attacks."""
    import torch

    from ..bench.attack import attacks
    from ..bench.cell import Bench
    from ..miniflux import load_recogniser

    if args.threads:
        torch.set_num_threads(args.threads)
    suite = _suite(args)
    count = args.exam or suite.count
    bench = Bench(open_miniflux(args), load_recogniser(), args.out, count, Bar().phase)
    part, parts = args.part
    for cell in suite.cells[part - 1 :: parts]:
        bench.run(cell)
    for cell in suite.attacked[part - 1 :: parts]:
        for attack in attacks().values():
            bench.attack(cell, attack)
        bench.frechet(cell)


def _suite(args: argparse.Namespace) -> Suite:
    from ..bench import suite
    from ..bench.method import find_method, methods

    names = [find_method(name).name for name in args.methods or methods()]
    if args.quick:
        return suite.quick()
    if args.concepts:
        return suite.chosen(names, args.concepts, args.seeds, attacked=args.attacks)
    return suite.full(names)


def _plot(args: argparse.Namespace, rows: Sequence[Row], attacks: Sequence[Row]) -> None:
    """Plots, where there is something to plot; tables come without matplotlib, too."""
    from ..bench.plots import draw

    try:
        draw(args.out, rows, attacks)
    except EraseError as error:
        warn(str(error))
