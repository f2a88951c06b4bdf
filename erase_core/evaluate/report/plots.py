"""The results of a benchmark as plots: trade-off, attacks, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EraseError
from ...methods.base import find_method
from ...writing import atomic
from ..attacks.base import find_attack
from .summary import KINDS, summarise
from .tables import attacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]


def draw(folder: Path, rows: Sequence[Row], attacks: Sequence[Row]) -> list[Path]:
    """Write the plots of what there is into ``folder``; EraseError without matplotlib."""
    single = [row for row in rows if row["kind"] != "several"]
    written = [folder / "tradeoff.png", _save(folder / "cost.png", _cost, single)]
    with figure(written[0], 1, len(KINDS)) as panels:
        _tradeoff(panels, single)
    if attacks:
        written.append(folder / "robustness.png")
        with figure(written[-1], len(_groups(attacks, "attack"))) as panels:
            _robustness(panels, attacks)
    return written


@contextmanager
def figure(path: Path, rows: int = 1, columns: int = 1) -> Iterator[list[Axes]]:
    """Axes to draw on, row by row, written as a PNG afterwards; EraseError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise EraseError(
            'Plots need matplotlib; run: pip install "eraseanything[bench]".'
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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


def _save(path: Path, plot: Any, rows: Sequence[Row]) -> Path:
    with figure(path) as (axes,):
        plot(axes, rows)
    return path


def _groups(rows: Sequence[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _tradeoff(panels: Sequence[Axes], rows: Sequence[Row]) -> None:
    """Acc_e against Acc_ir, a panel a kind, a mark a method: the best corner is top left."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    for axes, kind in zip(panels, KINDS, strict=True):
        own = [row for row in rows if row["kind"] == kind]
        for (method,), cells in _groups(own, "method").items():
            found = summarise(cells)
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


def _cost(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean seconds of making an eraser."""
    groups = _groups([row for row in rows if row["file_bytes"]], "method")
    names = [find_method(method).label for (method,) in groups]
    seconds = [sum(r["seconds"] for r in cells) / len(cells) for cells in groups.values()]
    axes.barh(names, seconds)
    axes.invert_yaxis()
    axes.set_xlabel("seconds to make an eraser")


def _robustness(panels: Sequence[Axes], rows: Sequence[Row]) -> None:
    """Share of pictures in which a concept is back: a panel an attack, a group a concept."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    width = 0.8 / len(names)
    for axes, ((attack,), found) in zip(panels, _groups(rows, "attack").items(), strict=True):
        concepts = sorted({attacked(row) for row in found})
        for place, method in enumerate(names):
            own = {attacked(row): row["rate"] for row in found if row["method"] == method}
            if own:
                spots = [concepts.index(concept) + place * width for concept in own]
                heights = [100 * rate["hits"] / rate["count"] for rate in own.values()]
                label = find_method(method).label
                bars = axes.bar(spots, heights, width, color=f"C{place}", label=label)
                axes.bar_label(bars, [rate["hits"] for rate in own.values()], fontsize=7)
        axes.set_title(find_attack(attack).label)
        axes.set_xticks([i + 0.4 - width / 2 for i in range(len(concepts))], concepts)
        axes.set_xlim(-width, len(concepts) - 0.2)
        axes.set_ylim(0, 115)
        axes.set_ylabel("back (%)")
    _legend(panels)
