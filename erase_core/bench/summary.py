"""Cells of one method and kind as one line: means over concepts with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.scores import ho

RATES = {
    "acc_e": "Acc_e",
    "acc_g": "Acc_g",
    "acc_g_seen": "seen",
    "acc_ir": "Acc_ir",
    "acc_near": "near",
    "acc_companion": "beside",
    "recognised_when_erased": "alive",
}
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
    pictures allow: from Jeffreys' posterior Beta(hits + 1/2, misses + 1/2), so that no hit in a few
    pictures does not pass for certainty. A concept without synonyms counts with Acc_e in Ho, as in
    :class:`erase_core.metrics.marks.Marks`.
    """
    drawn, means = _bootstrap(rows, 1)
    return {name: _estimate(means[name], drawn[name]) for name in (*RATES, "ho") if name in means}


def ahead(rows: Sequence[Row], others: Sequence[Row]) -> Estimate | None:
    """By how much the Ho of ``rows`` is above that of ``others``, over the concepts and seeds that
    both have: the bootstrap draws the same ones for both. None without any."""
    own, other = ({(*row["concepts"], row["seed"]): row for row in each} for each in (rows, others))
    shared = [key for key in own if key in other]
    if not shared:
        return None
    (drawn, means), (base, below) = (
        _bootstrap([each[key] for key in shared], seed) for seed, each in enumerate((own, other), 1)
    )
    return _estimate(means["ho"] - below["ho"], drawn["ho"] - base["ho"])


def _bootstrap(rows: Sequence[Row], seed: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """DRAWS means of every rate and of Ho, and what they scatter about. The concepts are the same
    ones for every ``seed`` (not 0), the rates that pictures allow are not."""
    rng = np.random.default_rng(seed)
    concepts = _by_concept(rows)
    picked = np.random.default_rng(0).integers(len(concepts), size=(DRAWS, len(concepts)))
    columns = {name: [[c[name] for c in own if c.get(name)] for own in concepts] for name in RATES}
    columns["general"] = [[cell.get("acc_g") or cell["acc_e"] for cell in own] for own in concepts]
    drawn: dict[str, np.ndarray] = {}
    means: dict[str, float] = {}
    for name, column in columns.items():
        if rates := [own for own in column if own]:
            whole = len(rates) == len(concepts)  # the parts of Ho are drawn together
            some = picked if whole else rng.integers(len(rates), size=(DRAWS, len(rates)))
            hits, misses, weights = _padded(rates)
            found = rng.beta(hits[some] + 0.5, misses[some] + 0.5)
            drawn[name] = (weights[some] * found).sum(2).mean(1)
            means[name] = float((weights * hits / (hits + misses)).sum(1).mean())
    parts = ("acc_e", "acc_ir", "general")
    drawn["ho"] = np.array([ho(*rates) for rates in zip(*(drawn[n] for n in parts), strict=True)])
    means["ho"] = ho(*(means[n] for n in parts))
    return drawn, means


def _by_concept(rows: Sequence[Row]) -> list[list[Row]]:
    """The cells of each concept, one a seed."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(" + ".join(row["concepts"]), []).append(row)
    return list(found.values())


def _padded(rates: Sequence[Sequence[Row]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, misses and weights (concepts, seeds); a concept's weights sum to 1, and are 0 where it
    has fewer seeds than another."""
    shape = (len(rates), max(map(len, rates)))
    hits, misses, weights = np.zeros(shape), np.ones(shape), np.zeros(shape)
    for place, own in enumerate(rates):
        some = slice(len(own))
        hits[place, some] = [rate["hits"] for rate in own]
        misses[place, some] = [rate["count"] - rate["hits"] for rate in own]
        weights[place, some] = 1 / len(own)
    return hits, misses, weights


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))
