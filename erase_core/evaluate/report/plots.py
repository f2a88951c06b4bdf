"""The results of a benchmark as plots: trade-off, attacks, cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from pandas import DataFrame

from ...methods.base import find_method
from ...writing import atomic
from ..attacks.base import find_attack
from .summary import KINDS, Row, summarise, table
from .tables import attacked


def draw(folder: Path, rows: Sequence[Row], attacks: Sequence[Row]) -> None:
    """Write the plots of what there is into ``folder``."""
    cells = table(rows)
    single = cells[cells["kind"] != "several"]
    with figure(folder / "tradeoff.png", 1, len(KINDS)) as panels:
        _tradeoff(panels, single)
    with figure(folder / "cost.png") as (axes,):
        _cost(axes, single)
    if attacks:
        found = attacked(attacks)
        with figure(folder / "robustness.png", found["attack"].nunique()) as panels:
            _robustness(panels, found)


@contextmanager
def figure(path: Path, rows: int = 1, columns: int = 1) -> Iterator[list[Axes]]:
    """Axes to draw on, row by row, written as a PNG afterwards."""
    matplotlib.use("Agg")
    sheet, axes = plt.subplots(
        rows,
        columns,
        figsize=(8, max(5.5, 1.8 * rows)),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    yield list(axes.flat)
    with atomic(path) as temporary:
        sheet.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(sheet)


def _tradeoff(panels: Sequence[Axes], cells: DataFrame) -> None:
    """Acc_e against Acc_ir, a panel a kind, a mark a method: the best corner is top left."""
    names = [*cells["method"].unique()]
    for axes, kind in zip(panels, KINDS, strict=True):
        for method, own in cells[cells["kind"] == kind].groupby("method", sort=False):
            found = summarise(own)
            x, y = found["acc_e"], found["acc_ir"]
            axes.errorbar(
                100 * x.value,
                100 * y.value,
                xerr=[[100 * (x.value - x.low)], [100 * (x.high - x.value)]],
                yerr=[[100 * (y.value - y.low)], [100 * (y.high - y.value)]],
                fmt="os^"[names.index(method) // 10 % 3],  # matplotlib has ten colours
                color=f"C{names.index(method) % 10}",
                label=find_method(method).label,
                alpha=0.8,
            )
        axes.set_title(kind)
        axes.set_xlabel("Acc_e: concept still seen (%)")
    panels[0].set_ylabel("Acc_ir: everything else seen (%)")
    _legend(panels)


def _legend(panels: Sequence[Axes]) -> None:
    """One legend for all panels, below them."""
    marks: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    whole = panels[0].get_figure(root=True)
    assert whole is not None
    whole.legend(marks.values(), marks, loc="outside lower center", ncols=3, fontsize=8)


def _cost(axes: Axes, cells: DataFrame) -> None:
    """Mean seconds of making an eraser."""
    made = cells[cells["file_bytes"] > 0].groupby("method", sort=False)["seconds"].mean()
    axes.barh([find_method(method).label for method in made.index], made)
    axes.invert_yaxis()
    axes.set_xlabel("seconds to make an eraser")


def _robustness(panels: Sequence[Axes], attacks: DataFrame) -> None:
    """Share of pictures in which a concept is back: a panel an attack, a group a concept."""
    names = attacks["method"].unique()
    width = 0.8 / len(names)
    for axes, (attack, found) in zip(panels, attacks.groupby("attack", sort=False), strict=True):
        concepts = sorted(found["on"].unique())
        for place, method in enumerate(names):
            own = found[found["method"] == method]
            if len(own):
                spots = own["on"].map(concepts.index) + place * width
                heights = 100 * own["rate.hits"] / own["rate.count"]
                label = find_method(method).label
                bars = axes.bar(spots, heights, width, color=f"C{place}", label=label)
                axes.bar_label(bars, own["rate.hits"], fontsize=7)
        axes.set_title(find_attack(attack).label)
        axes.set_xticks([i + 0.4 - width / 2 for i in range(len(concepts))], concepts)
        axes.set_xlim(-width, len(concepts) - 0.2)
        axes.set_ylim(0, 115)
        axes.set_ylabel("back (%)")
    _legend(panels)
