"""Cells as a table; those of one method and kind as one line: means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from ..scores import ho

RATES = {
    "acc_e": "Acc_e",
    "acc_g": "Acc_g",
    "acc_g_seen": "seen",
    "acc_ir": "Acc_ir",
    "acc_near": "near",
    "acc_companion": "beside",
    "recognised_when_erased": "alive",
}
PARTS = ("acc_e", "acc_ir", "general")  # of Ho
KINDS = ("entity", "abstraction", "relationship")
NEEDED = (  # by the tables, of every cell
    *("method", "kind", "seed", "ho", "distance", "seconds", "file_bytes"),
    *(f"{rate}.{part}" for rate in ("acc_e", "acc_ir", "agreement") for part in ("hits", "count")),
)
DRAWS = 2000
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """ "1.2 [0.3, 4.0]"."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def plain(self) -> str:
        """ "0.981 [0.972, 0.990]"."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def table(rows: Sequence[Row]) -> DataFrame:
    """A line a cell, by concept ("dog", "dog + rose") and seed. Nested values have joined names:
    "acc_e.hits". The KeyError of a damaged cell says what it lacks.

    "general" is Acc_g. A concept without synonyms counts with Acc_e, as in
    :class:`erase_core.evaluate.marks.Marks`.
    """
    whole = [
        {
            "peak_bytes": None,
            **row,
            "concept": " + ".join(row["concepts"]),
            "general": row.get("acc_g") or row["acc_e"],
        }
        for row in rows
    ]
    cells = pd.json_normalize(whole).astype({"peak_bytes": float})
    lacking = cells.reindex(columns=NEEDED).isna().any()
    if lacking.any():
        raise KeyError(", ".join(lacking.index[lacking]))
    return cells.set_index(["concept", "seed"])


def summarise(cells: DataFrame) -> dict[str, Estimate]:
    """Every rate of RATES over the concepts that have it, and "ho" over all; a concept's rate is
    the mean over its seeds.

    The bootstrap draws concepts with replacement, and for each of their cells a rate that its
    pictures allow. The rate comes from Jeffreys' posterior Beta(hits + 1/2, misses + 1/2): no hit
    in a few pictures is no certainty.
    """
    rng = np.random.default_rng(1)
    drawn: dict[str, np.ndarray] = {}
    means: dict[str, float] = {}
    for name in (*RATES, "general"):
        rates = _rates(cells, name).dropna(subset="hits")
        if len(rates):
            shape = _shape(rates)
            draws = [_draw(rate, shape, rng) for rate in rates.to_dict("records")]
            drawn[name], means[name] = _resampled(draws, rates), _mean(rates)
    drawn["ho"], means["ho"] = _ho(drawn), ho(*(means[part] for part in PARTS))
    return {name: _estimate(means[name], drawn[name]) for name in (*RATES, "ho") if name in means}


def ahead(cells: DataFrame, others: DataFrame) -> Estimate | None:
    """By how much the Ho of ``cells`` is above that of ``others``, over the concepts and seeds that
    both have. The bootstrap draws the same ones for both. Where both have answered the same
    questions, it draws what became of each question. None without any."""
    shared = cells[cells.index.isin(others.index)]
    if shared.empty:
        return None
    rng = np.random.default_rng(1)
    sides = shared, others.reindex(shared.index)
    drawn: list[dict[str, np.ndarray]] = [{}, {}]
    means: list[dict[str, float]] = [{}, {}]
    for part in PARTS:
        rates = [_rates(side, part) for side in sides]
        pairs = zip(*(own.to_dict("records") for own in rates), strict=True)
        draws = [_draw_pair(a, b, _shape(shared), rng) for a, b in pairs]
        for side in 0, 1:
            drawn[side][part] = _resampled([draw[side] for draw in draws], shared)
            means[side][part] = _mean(rates[side])
    lead = ho(*means[0].values()) - ho(*means[1].values())
    return _estimate(lead, _ho(drawn[0]) - _ho(drawn[1]))


def _rates(cells: DataFrame, name: str) -> DataFrame:
    """Hits, count and answers of one rate; NaN in cells without it."""
    parts = {f"{name}.{part}": part for part in ("hits", "count", "answers")}
    rates = cells.reindex(columns=list(parts)).rename(columns=parts)
    return rates.astype({"answers": object}).fillna({"answers": ""})


def _mean(rates: DataFrame) -> float:
    return float((rates["hits"] / rates["count"]).groupby("concept").mean().mean())


def _shape(cells: DataFrame) -> tuple[int, int]:
    return DRAWS, len(cells.index.unique("concept"))


def _draw(rate: Row, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Rates that the pictures allow: Beta(hits + 1/2, misses + 1/2)."""
    return rng.beta(rate["hits"] + 0.5, rate["count"] - rate["hits"] + 0.5, shape)


def _draw_pair(
    rate: Row, other: Row, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """The same of two, (2, ...): with the same questions answered, shares of the four outcomes that
    a question can have, from Dirichlet(counts + 1/4), whose sums are those same Betas."""
    answers = list(zip(rate["answers"], other["answers"], strict=False))
    if not len(answers) == rate["count"] == other["count"]:
        return np.stack([_draw(rate, shape, rng), _draw(other, shape, rng)])
    counts = [answers.count((a, b)) for a in "01" for b in "01"]
    neither, second, first, both = np.moveaxis(rng.dirichlet(np.add(counts, 0.25), shape), -1, 0)
    return np.stack([first + both, second + both])


def _resampled(draws: Sequence[np.ndarray], cells: DataFrame) -> np.ndarray:
    """Means (DRAWS,) over as many concepts as there are, drawn with replacement from the draws
    (DRAWS, concepts) of every cell; the same concepts whatever is drawn."""
    places = cells.groupby("concept", sort=False).ngroup().to_numpy()
    count = places.max() + 1
    stacked = np.stack(draws)
    own = np.stack([stacked[places == place].mean(0) for place in range(count)])
    picked = np.random.default_rng(0).integers(count, size=(1, DRAWS, count))
    return np.take_along_axis(own, picked, 0)[0].mean(1)


def _ho(drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array([ho(*rates) for rates in zip(*(drawn[part] for part in PARTS), strict=True)])


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))
