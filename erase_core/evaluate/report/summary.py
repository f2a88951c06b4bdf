"""Cells of one method and kind as one line: means over concepts with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def summarise(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Every rate of RATES over the concepts that have it, and "ho" over all; a concept's rate is
    the mean over its seeds.

    The bootstrap draws concepts with replacement, and for each of their cells a rate that its
    pictures allow. The rate comes from Jeffreys' posterior Beta(hits + 1/2, misses + 1/2): no hit
    in a few pictures is no certainty. A concept without synonyms counts with Acc_e in Ho, as in
    :class:`erase_core.evaluate.marks.Marks`.
    """
    rng = np.random.default_rng(1)
    drawn: dict[str, np.ndarray] = {}
    means: dict[str, float] = {}
    for name in (*RATES, "general"):
        found = [[rate for row in own if (rate := _rate(row, name))] for own in _by_concept(rows)]
        if rates := [own for own in found if own]:
            draws = [_mean(_draw(rate, _shape(rates), rng) for rate in own) for own in rates]
            drawn[name] = _resampled(np.stack(draws))
            means[name] = _mean(_mean(_fraction(rate) for rate in own) for own in rates)
    drawn["ho"], means["ho"] = _ho(drawn), ho(*(means[part] for part in PARTS))
    return {name: _estimate(means[name], drawn[name]) for name in (*RATES, "ho") if name in means}


def ahead(rows: Sequence[Row], others: Sequence[Row]) -> Estimate | None:
    """By how much the Ho of ``rows`` is above that of ``others``, over the concepts and seeds that
    both have. The bootstrap draws the same ones for both. Where both have answered the same
    questions, it draws what became of each question. None without any."""
    found = {_cell(row): row for row in others}
    shared = [row for row in rows if _cell(row) in found]
    if not shared:
        return None
    rng = np.random.default_rng(1)
    concepts = [[(row, found[_cell(row)]) for row in own] for own in _by_concept(shared)]
    drawn: list[dict[str, np.ndarray]] = [{}, {}]
    means: list[dict[str, float]] = [{}, {}]
    for part in PARTS:
        pairs = [[(_rate(a, part), _rate(b, part)) for a, b in cells] for cells in concepts]
        draws = [_mean(_draw_pair(a, b, _shape(pairs), rng) for a, b in own) for own in pairs]
        for side in 0, 1:
            drawn[side][part] = _resampled(np.stack([draw[side] for draw in draws]))
            means[side][part] = _mean(_mean(_fraction(pair[side]) for pair in own) for own in pairs)
    lead = ho(*means[0].values()) - ho(*means[1].values())
    return _estimate(lead, _ho(drawn[0]) - _ho(drawn[1]))


def _by_concept(rows: Sequence[Row]) -> list[list[Row]]:
    """The cells of each concept, one a seed."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(" + ".join(row["concepts"]), []).append(row)
    return list(found.values())


def _cell(row: Row) -> tuple[Any, ...]:
    return (*row["concepts"], row["seed"])


def _rate(row: Row, name: str) -> Any:
    return row.get("acc_g") or row["acc_e"] if name == "general" else row.get(name)


def _fraction(rate: Row) -> float:
    return rate["hits"] / rate["count"]


def _shape(concepts: Sequence[Any]) -> tuple[int, int]:
    return DRAWS, len(concepts)


def _draw(rate: Row, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Rates that the pictures allow: Beta(hits + 1/2, misses + 1/2)."""
    return rng.beta(rate["hits"] + 0.5, rate["count"] - rate["hits"] + 0.5, shape)


def _draw_pair(
    rate: Row, other: Row, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """The same of two, (2, ...): with the same questions answered, shares of the four outcomes that
    a question can have, from Dirichlet(counts + 1/4), whose sums are those same Betas."""
    answers = list(zip(rate.get("answers", ""), other.get("answers", ""), strict=False))
    if not len(answers) == rate["count"] == other["count"]:
        return np.stack([_draw(rate, shape, rng), _draw(other, shape, rng)])
    counts = [answers.count((a, b)) for a in "01" for b in "01"]
    neither, second, first, both = np.moveaxis(rng.dirichlet(np.add(counts, 0.25), shape), -1, 0)
    return np.stack([first + both, second + both])


def _resampled(draws: np.ndarray) -> np.ndarray:
    """Means (DRAWS,) over as many concepts as there are, drawn with replacement from ``draws``
    (concepts, DRAWS, concepts); the same concepts whatever is drawn."""
    count = len(draws)
    picked = np.random.default_rng(0).integers(count, size=(1, DRAWS, count))
    return np.take_along_axis(draws, picked, 0)[0].mean(1)


def _ho(drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array([ho(*rates) for rates in zip(*(drawn[part] for part in PARTS), strict=True)])


def _mean(values: Iterable[Any]) -> Any:
    kept = list(values)
    return sum(kept) / len(kept)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))
