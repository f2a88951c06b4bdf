"""Rates with their intervals, and the harmonic mean that joins them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

Z95 = 1.959964  # standard normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``count`` pictures; ``answers``, where known, a "1" or a "0" for each.

    Answers to the same questions pair two erasers picture by picture.
    """

    hits: int
    count: int
    answers: str = field(default="", compare=False)

    @classmethod
    def of(cls, judged: Iterable[bool]) -> Rate:
        """Count what was judged."""
        answers = "".join("01"[bool(hit)] for hit in judged)
        return cls(answers.count("1"), len(answers), answers)

    def __add__(self, other: Rate) -> Rate:
        known = len(self.answers) == self.count and len(other.answers) == other.count
        answers = self.answers + other.answers if known else ""
        return Rate(self.hits + other.hits, self.count + other.count, answers)

    @property
    def value(self) -> float:
        """The fraction in [0, 1]; NaN of no pictures."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the fraction.

        ``(p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)``, E. B. Wilson, 1927.
        """
        if not self.count:
            return (0.0, 1.0)
        # Written out, for the node and the demo tell it, too, and come without scipy.
        n, p = self.count, self.value
        centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
        return (max(0.0, centre - half), min(1.0, centre + half))

    def to_dict(self) -> dict[str, object]:
        """Fraction, interval, counts and answers for JSON."""
        low, high = self.interval
        plain = {
            "value": round(self.value, 4) if self.count else None,
            "interval": [round(low, 4), round(high, 4)],
            "hits": self.hits,
            "count": self.count,
        }
        return plain | ({"answers": self.answers} if self.answers else {})

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {self.count}"


def ho(acc_e: float, acc_ir: float, acc_g: float) -> float:
    """Harmonic mean of efficacy, specificity and generality, all in [0, 1]; 0 if one is 0.

    ``3 / (1 / (1 - Acc_e) + 1 / Acc_ir + 1 / (1 - Acc_g))``, after MACE (Lu et al., CVPR 2024).
    """
    parts = (1 - acc_e, acc_ir, 1 - acc_g)
    return 0.0 if min(parts) <= 0 else 3 / sum(1 / part for part in parts)
