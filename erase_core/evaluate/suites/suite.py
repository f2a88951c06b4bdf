"""Which cells a benchmark has: the concepts of each kind, and how many each method is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...methods.base import plain_name
from .cell import Cell

# Every row, ours too, is tuned on the first and reported on the second.
DEVELOPMENT: dict[str, tuple[str, ...]] = {
    "entity": ("tiger", "car"),
    "abstraction": ("red", "comic"),
    "relationship": ("hugging", "left of"),
}
REPORTED: dict[str, tuple[str, ...]] = {
    "entity": ("dog", "rose", "helicopter", "pizza", "robot", "house"),
    "abstraction": ("blue", "sepia", "two", "pink", "mosaic", "neon"),
    "relationship": ("above", "kissing", "inside", "right of", "below", "holding hands with"),
}
MAIN = ("untouched", "esd-x-strict", "ca-model", "released", "eraseanything")
SEVERAL = (
    "dog", "rose", "helicopter", "pizza", "robot",
    "house", "fox", "whale", "bus", "guitar",
    "elephant", "tulip", "train", "cake", "ghost",
    "umbrella", "owl", "bee", "sailboat", "apple",
)  # fmt: skip
SETS = (5, 10, 20)
COUNT = 34  # pictures a question: some 200 a cell
SEVERAL_METHODS = ("untouched", "uce", "mace", "eraseanything", "ours-combined")


@dataclass(frozen=True)
class Suite:
    """The cells of a benchmark, the pictures a question, the cells that are attacked, and those
    whose Frechet distance is taken."""

    cells: tuple[Cell, ...]
    count: int
    attacked: tuple[Cell, ...] = ()
    distant: tuple[Cell, ...] = ()


def quick() -> Suite:
    """Three methods on a thing and a colour, ours as the demo has it: within ten minutes."""
    names, chosen = ("dog", "blue"), ("untouched", "esd-x-strict", "ours-plain")
    cells = [Cell(method, (name,)) for name in names for method in chosen]
    return Suite(tuple(cells), count=12)


def full(methods: Iterable[str]) -> Suite:
    """The main rows on six concepts a kind, all others on two, several at once, attacks."""
    methods = list(methods)
    cells = []
    for names in REPORTED.values():
        for number, name in enumerate(names):
            cells += [Cell(m, (name,)) for m in methods if m in MAIN or number < 2]
    for size in SETS:
        cells += [Cell(m, SEVERAL[:size]) for m in methods if m in SEVERAL_METHODS]
    firsts = [names[0] for names in REPORTED.values()]
    attacked = [Cell(m, (name,)) for name in firsts for m in methods if m in MAIN]
    return Suite(tuple(cells), COUNT, tuple(attacked), tuple(attacked))


def chosen(
    methods: Iterable[str],
    concepts: Iterable[str],
    seeds: Iterable[int],
    *,
    attacked: bool = False,
    distant: bool = False,
) -> Suite:
    """Every one of these methods on every one of these concepts; "dog+rose" goes together."""
    methods, seeds = list(dict.fromkeys(map(plain_name, methods))), list(seeds)
    sets = [tuple(name.split("+")) for name in concepts]
    cells = tuple(Cell(m, names, seed) for names in sets for m in methods for seed in seeds)
    return Suite(cells, COUNT, cells if attacked else (), cells if distant else ())
