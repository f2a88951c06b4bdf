"""Numbers on the command line, within limits: what is absurd is wrong usage, not an endless run."""

from __future__ import annotations

import argparse
from collections.abc import Callable

HIGHEST_SEED = 2**63 - 1  # the highest seed of a generator
STEPS = 1000  # of a picture at most: so many levels a schedule has
SIDE = 4096  # pixels of a picture's side at most


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {low} to {high}")
        return value

    return read


def real(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: finite numbers from ``low`` to ``high``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is no number from {low:g} to {high:g}")
        return value

    return read
