"""The results of a benchmark as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pandas import DataFrame, Index, Series

from ...methods.base import find_method
from ..attacks.base import find_attack
from .markdown import markdown
from .summary import KINDS, RATES, Row, ahead, summarise, table

OURS = "eraseanything"  # the row that all others are measured against

# Acc_e / Acc_ir / Acc_g of the paper on Flux.1-dev, in per cent (Gao et al., ICML 2025, Table 2).
PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "eraseanything": {
        "entity": (12.5, 91.7, 18.6),
        "abstraction": (21.1, 90.5, 24.7),
        "relationship": (18.4, 90.2, 19.3),
    },
    "ca-model": {
        "entity": (14.8, 89.2, 27.3),
        "abstraction": (25.2, 88.3, 29.6),
        "relationship": (22.7, 88.6, 23.1),
    },
}


def results(rows: Sequence[Row], attacks: Sequence[Row] = (), distances: Sequence[Row] = ()) -> str:
    """All tables as Markdown; the KeyError of a damaged cell says what it lacks."""
    cells = table(rows)
    parts = [
        f"## {kind.capitalize()}\n\n{_kind(own, kind)}"
        for kind in KINDS
        if len(own := cells[cells["kind"] == kind])
    ]
    several = cells["kind"] == "several"
    parts.append(f"## Ho of every concept\n\n{_concepts(cells[~several])}")
    if several.any():
        parts.append(f"## Several at once\n\n{_several(cells[several])}")
    parts.append(f"## Harm and cost\n\n{_costs(cells, distances)}")
    if attacks:
        parts.append(f"## Attacks\n\n{_attacks(attacked(attacks))}")
    return "\n\n".join(parts) + "\n"


def _kind(cells: DataFrame, kind: str) -> str:
    """A kind's tables: the methods that have more concepts than every method has, each with its own
    (ours' lead is over the same ones), then all methods on those that every method has."""
    names = {method: {*own.index.unique("concept")} for method, own in cells.groupby("method")}
    everything, shared = set.union(*names.values()), set.intersection(*names.values())
    if not shared or shared == everything:
        return _scores(cells, kind)
    more = cells["method"].isin([method for method, own in names.items() if own > shared])
    alike = cells.index.isin(shared, level="concept")
    told = ", ".join(f'"{name}"' for name in sorted(shared))
    tables = _scores(cells[more], kind), _scores(cells[alike], kind)
    return f"\n\nAll methods, on {told} alone:\n\n".join(tables)


def _scores(cells: DataFrame, kind: str) -> str:
    """A line a method, means over its concepts in per cent."""
    paper_head = "paper: Acc_e / Acc_ir / Acc_g"
    head = ["method", "concepts", *RATES.values(), "Ho", "Ho of ours above it", paper_head]
    ours, lines = cells[cells["method"] == OURS], []
    for name, own in cells.groupby("method", sort=False):
        rates = summarise(own)
        paper = PAPER.get(name, {}).get(kind)
        seeds = own.groupby("concept").size()
        lead = ahead(ours, own) if name != OURS else None
        lines.append(
            [
                find_method(name).label,
                ", ".join(f"{c} (x{n})" if n > 1 else c for c, n in seeds.items()),
                *(rates[rate].percent() if rate in rates else "–" for rate in RATES),
                rates["ho"].plain(),
                lead.plain() if lead else "–",
                " / ".join(str(value) for value in paper) if paper else "",
            ]
        )
    return markdown(head, lines)


def _concepts(cells: DataFrame) -> str:
    """A line a concept alone, a column a method: Ho, the mean over seeds."""
    methods = cells["method"].unique()
    kinds = cells.sort_values("kind", key=lambda names: names.map(KINDS.index), kind="stable")
    hos = cells.groupby(["concept", "method"])["ho"].mean().map("{:.3f}".format).unstack()
    hos = hos.reindex(index=kinds.index.unique("concept"), columns=methods).fillna("–")
    return markdown(["concept", *(find_method(name).label for name in methods)], hos.itertuples())


def _several(cells: DataFrame) -> str:
    """A line a cell, the smallest sets first."""
    rates = {
        "acc_e": "Acc_e",
        "acc_g": "Acc_g",
        "acc_ir": "Acc_ir",
        "untouched.acc_ir": "untouched",
        "acc_near": "near",
    }
    lines = [
        [
            find_method(cell["method"]).label,
            str(len(cell["concepts"])),
            *(_percent(cell, rate) for rate in rates),
            f"{cell['ho']:.3f}",
        ]
        for _, cell in cells.sort_values("concepts", key=_lengths, kind="stable").iterrows()
    ]
    return markdown(["method", "concepts", *rates.values(), "Ho"], lines)


def _lengths(lists: Series) -> Series:
    return lists.map(len)


def _percent(cell: Series, rate: str) -> str:
    """A rate of a cell in per cent with its interval."""
    if pd.isna(cell.get(f"{rate}.value")):
        return "–"
    low, high = cell[f"{rate}.interval"]
    return f"{100 * cell[f'{rate}.value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _costs(cells: DataFrame, distances: Sequence[Row]) -> str:
    """A line a method: harm over the cells that all methods with a concept alone have, and what
    those cost; of a method that has none of them, what its own cost."""
    alike = cells.index.isin(_alike(cells))
    shared = cells["method"].isin(cells["method"][alike])
    harm = cells[alike].groupby("method")
    cost = cells[alike | ~shared].groupby("method")
    agreed = harm["agreement.hits"].sum() / harm["agreement.count"].sum()
    fids = DataFrame([*distances], columns=["method", "fid"]).groupby("method")["fid"].mean()
    columns = {
        "feature distance": harm["distance"].mean().map("{:.4f}".format),
        "prompt agreement": (100 * agreed).map("{:.1f}".format),
        "FID": fids.map("{:.3f}".format),
        "seconds": cost["seconds"].mean().map("{:.0f}".format),
        "peak GB": (cost["peak_bytes"].max() / 1e9).map("{:.2f}".format, na_action="ignore"),
        "file MB": (cost["file_bytes"].mean() / 1e6).map("{:.2f}".format),
    }
    return _methods(DataFrame(columns).reindex(cells["method"].unique()))


def _alike(cells: DataFrame) -> Index:
    """Concepts alone, with their seeds, that every method has which has any."""
    alone = cells[cells["kind"] != "several"]
    methods = alone.groupby(["concept", "seed"])["method"].nunique()
    return methods.index[methods == alone["method"].nunique()]


def _attacks(attacks: DataFrame) -> str:
    """A table an attack: a line a method, a column a concept; pictures in which it is back."""
    parts = [
        f"### {find_attack(name).label}\n\n{_attack(own)}"
        for name, own in attacks.groupby("attack", sort=False)
    ]
    return "\n\n".join(parts)


def _attack(rows: DataFrame) -> str:
    back = rows["rate.hits"].astype(str) + " of " + rows["rate.count"].astype(str)
    told = rows.assign(back=back).pivot(index="method", columns="on", values="back")
    sums = rows.groupby("method")[["rate.hits", "rate.count"]].sum()
    whole = [
        f"{hits} of {count} ({100 * hits / count:.0f} %)" for _, hits, count in sums.itertuples()
    ]
    told["together"] = Series(whole, sums.index).where(told.notna().all(axis=1))
    return _methods(told.reindex(rows["method"].unique()))


def attacked(rows: Sequence[Row]) -> DataFrame:
    """A line an attack on an eraser; ``on`` says of what: "dog", or "dog, seed 1"."""
    attacks = pd.json_normalize([*rows]).astype({"rate.hits": int, "rate.count": int})
    seeds = ", seed " + attacks["seed"].astype(str)
    return attacks.assign(on=attacks["concept"] + seeds.where(attacks["seed"] > 0, ""))


def _methods(told: DataFrame) -> str:
    """A line a method, as ``told`` has them; a dash for what is missing."""
    lines = told.astype(object).fillna("–").itertuples()
    return markdown(
        ["method", *told.columns], [[find_method(name).label, *line] for name, *line in lines]
    )
