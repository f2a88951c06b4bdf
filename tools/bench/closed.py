"""Erasers in a second by how much they erase at once: the tables of docs/instant.md.

    PYTHONPATH=. python tools/bench/closed.py [--exam 16] [--out out/instant]

Measures with ``eraseanything bench`` what the folder lacks, keeps its rows in
docs/results/instant.csv and prints the tables. At 16 pictures a question a cell has some 70.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erase_core.cli.main import main as command
from erase_core.evaluate.report.markdown import markdown
from erase_core.evaluate.suites.store import read_rows, write_csv
from erase_core.evaluate.suites.suite import SEVERAL
from erase_core.methods.base import find_method

FILE = Path(__file__).parents[2] / "docs" / "results" / "instant.csv"
METHODS = ("untouched", "uce", "speed", "rece", "leace", "trce", "pisces", "hirm")
SETS: dict[str, tuple[str, ...]] = {
    "1 thing": SEVERAL[:1],
    "5 things": SEVERAL[:5],
    "10 things": SEVERAL[:10],
    "20 things": SEVERAL,
    "1 colour": ("blue",),
    "3 colours": ("blue", "pink", "green"),
    "1 relation": ("above",),
    "3 relations": ("above", "kissing", "inside"),
}
Row = Mapping[str, Any]


def measure(out: Path, exam: int) -> None:
    """Run the cells that the folder lacks."""
    names = ["+".join(concepts) for concepts in SETS.values()]
    argv = ["bench", "--out", str(out), "--exam", str(exam), "--threads", "1"]
    if code := command([*argv, "--methods", *METHODS, "--concepts", *names]):
        raise SystemExit(code)


def tables(rows: Sequence[Row]) -> str:
    """Ho with the seconds that an eraser took; then Acc_e / Acc_ir / alive in per cent."""
    found = {(row["method"], tuple(row["concepts"])): row for row in rows}
    parts = []
    for told in (_score, _rates):
        lines = [
            [find_method(m).label, *(told(found.get((m, c))) for c in SETS.values())]
            for m in METHODS
        ]
        parts.append(markdown(["Method", *SETS], lines))
    return "\n\n".join(parts)


def _score(row: Row | None) -> str:
    if row is None:
        return "–"
    seconds = f" ({row['seconds']:g} s)" if row["method"] != "untouched" else ""
    return f"{row['ho']:.3f}{seconds}"


def _rates(row: Row | None) -> str:
    if row is None:
        return "–"
    rates = (row[name]["value"] for name in ("acc_e", "acc_ir", "recognised_when_erased"))
    return " / ".join(f"{100 * rate:.0f}" for rate in rates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("out/instant"))
    args = parser.parse_args()
    measure(args.out, args.exam)
    rows = read_rows(args.out)
    write_csv(FILE, rows)
    print(tables(rows))


if __name__ == "__main__":
    main()
