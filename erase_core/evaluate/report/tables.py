"""The results of a benchmark as tables in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...methods.base import find_method
from ..attacks.base import find_attack
from .summary import KINDS, RATES, Row, ahead, summarise

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
    """All tables as Markdown."""
    parts = [
        f"## {kind.capitalize()}\n\n{_kind([row for row in rows if row['kind'] == kind], kind)}"
        for kind in KINDS
        if any(row["kind"] == kind for row in rows)
    ]
    parts.append(f"## Ho of every concept\n\n{_concepts(rows)}")
    several = [row for row in rows if row["kind"] == "several"]
    if several:
        parts.append(f"## Several at once\n\n{_several(several)}")
    parts.append(f"## Harm and cost\n\n{_costs(rows, distances)}")
    if attacks:
        parts.append(f"## Attacks\n\n{_attacks(attacks)}")
    return "\n\n".join(parts) + "\n"


def _by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _kind(rows: Sequence[Row], kind: str) -> str:
    """A kind's tables: the methods that have more concepts than every method has, each with its own
    (ours' lead is over the same ones), then all methods on those that every method has."""
    found = _by_method(rows)
    names = {method: {row["concepts"][0] for row in own} for method, own in found.items()}
    everything, shared = set.union(*names.values()), set.intersection(*names.values())
    if not shared or shared == everything:
        return _scores(found, kind)
    whole = {method: own for method, own in found.items() if names[method] > shared}
    alike = {m: [r for r in own if r["concepts"][0] in shared] for m, own in found.items()}
    told = ", ".join(f'"{name}"' for name in sorted(shared))
    tables = [_scores(whole, kind)] if whole else []
    return "\n\n".join([*tables, f"All methods, on {told} alone:", _scores(alike, kind)])


def _scores(found: Mapping[str, Sequence[Row]], kind: str) -> str:
    """A line a method, means over its concepts in per cent."""
    paper_head = "paper: Acc_e / Acc_ir / Acc_g"
    head = ["method", "concepts", *RATES.values(), "Ho", "Ho of ours above it", paper_head]
    lines = []
    for name, cells in found.items():
        rates = summarise(cells)
        paper = PAPER.get(name, {}).get(kind)
        seeds = Counter(cell["concepts"][0] for cell in cells)
        concepts = [f"{c} (x{n})" if n > 1 else c for c, n in sorted(seeds.items())]
        lead = ahead(found[OURS], cells) if OURS in found and name != OURS else None
        lines.append(
            [
                find_method(name).label,
                ", ".join(concepts),
                *(rates[rate].percent() if rate in rates else "–" for rate in RATES),
                rates["ho"].plain(),
                lead.plain() if lead else "–",
                " / ".join(str(value) for value in paper) if paper else "",
            ]
        )
    return markdown(head, lines)


def _concepts(rows: Sequence[Row]) -> str:
    """A line a concept alone, a column a method: Ho, the mean over seeds."""
    alone = [row for row in rows if len(row["concepts"]) == 1]
    names = dict.fromkeys(row["method"] for row in alone)
    found: dict[str, dict[str, list[float]]] = {}
    for row in sorted(alone, key=lambda row: KINDS.index(row["kind"])):
        found.setdefault(row["concepts"][0], {}).setdefault(row["method"], []).append(row["ho"])
    lines = [
        [concept, *(f"{_mean(hos[name]):.3f}" if name in hos else "–" for name in names)]
        for concept, hos in found.items()
    ]
    return markdown(["concept", *(find_method(name).label for name in names)], lines)


def _several(rows: Sequence[Row]) -> str:
    head = ["method", "things", "Acc_e", "Acc_g", "Acc_ir", "untouched", "near", "Ho"]
    lines = [
        [
            find_method(row["method"]).label,
            str(len(row["concepts"])),
            *(percent(row[rate]) for rate in ("acc_e", "acc_g", "acc_ir")),
            percent(row["untouched"]["acc_ir"]),
            percent(row["acc_near"]),
            f"{row['ho']:.3f}",
        ]
        for row in sorted(rows, key=lambda row: len(row["concepts"]))
    ]
    return markdown(head, lines)


def _costs(rows: Sequence[Row], distances: Sequence[Row]) -> str:
    """A line a method: harm over the cells that all methods with a concept alone have, and what
    those cost; of a method that has none of them, what its own cost."""
    head = [
        "method", "feature distance", "prompt agreement", "FID", "seconds", "peak GB", "file MB"
    ]  # fmt: skip
    fids, alike = _by_method(distances), _alike(rows)
    lines = []
    for name, own in _by_method(rows).items():
        shared = [row for row in own if _cell(row) in alike]
        cells = shared or own
        agreed = sum(c["agreement"]["hits"] for c in cells)
        asked = sum(c["agreement"]["count"] for c in cells)
        peaks = [c["peak_bytes"] for c in cells if c.get("peak_bytes")]
        lines.append(
            [
                find_method(name).label,
                f"{_mean(c['distance'] for c in cells):.4f}" if shared else "–",
                f"{100 * agreed / asked:.1f}" if shared else "–",
                f"{_mean(row['fid'] for row in fids[name]):.3f}" if name in fids else "–",
                f"{_mean(c['seconds'] for c in cells):.0f}",
                f"{max(peaks) / 1e9:.2f}" if peaks else "–",
                f"{_mean(c['file_bytes'] for c in cells) / 1e6:.2f}",
            ]
        )
    return markdown(head, lines)


def _cell(row: Row) -> tuple[str, int]:
    return " + ".join(row["concepts"]), row["seed"]


def _alike(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Concepts alone, with their seeds, that every method has which has any."""
    alone = _by_method(row for row in rows if len(row["concepts"]) == 1)
    found = [{_cell(row) for row in own} for own in alone.values()]
    return set.intersection(*found) if found else set()


def _attacks(rows: Sequence[Row]) -> str:
    """A table an attack: a line a method, a column a concept; pictures in which it is back."""
    parts = []
    for name in dict.fromkeys(row["attack"] for row in rows):
        own = [row for row in rows if row["attack"] == name]
        parts.append(f"### {find_attack(name).label}\n\n{_attack(own)}")
    return "\n\n".join(parts)


def _attack(rows: Sequence[Row]) -> str:
    columns = sorted({attacked(row) for row in rows})
    lines = []
    for name, found in _by_method(rows).items():
        rates = {attacked(row): row["rate"] for row in found}
        told = [_back(rates[c]["hits"], rates[c]["count"]) if c in rates else "–" for c in columns]
        hits, count = (sum(rate[part] for rate in rates.values()) for part in ("hits", "count"))
        whole = f"{_back(hits, count)} ({100 * hits / count:.0f} %)"
        lines.append([find_method(name).label, *told, whole if len(rates) == len(columns) else "–"])
    return markdown(["method", *columns, "together"], lines)


def attacked(row: Row) -> str:
    """What an attack was on: "dog", or "dog, seed 1"."""
    return row["concept"] + (f", seed {row['seed']}" if row["seed"] else "")


def _back(hits: int, count: int) -> str:
    return f"{hits} of {count}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [list(head), ["---"] * len(head), *map(list, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def percent(rate: Mapping[str, Any] | None) -> str:
    """A rate of a row in per cent with its interval."""
    if not rate:
        return "–"
    low, high = rate["interval"]
    return f"{100 * rate['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
