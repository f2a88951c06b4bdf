"""Where the nodes of a workflow lie: boxes in rows and columns, and the ways of its wires.

A plan says what lies in what; sizes come from the nodes. A wire that would pass behind a node takes
a lane above all nodes, or below them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

TITLE = 30  # pixels: a node's title bar, which lies above its position
PAD, HEAD = 20, 46  # pixels: space in a frame; its own title
BESIDE, BELOW = 50, 30  # pixels between the boxes of a row, of a column
LANE = 16  # pixels between two lanes, and between two wires in the gap beside a column
Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class Box(Protocol):
    """Anything that takes room."""

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height."""

    def place(self, x: int, y: int) -> None:
        """Put the upper left corner there."""


@dataclass
class Row:
    """Boxes beside each other."""

    boxes: Sequence[Box]

    @property
    def extent(self) -> tuple[int, int]:
        widths, heights = zip(*(box.extent for box in self.boxes), strict=True)
        return sum(widths) + BESIDE * (len(widths) - 1), max(heights)

    def place(self, x: int, y: int) -> None:
        for box in self.boxes:
            box.place(x, y)
            x += box.extent[0] + BESIDE


@dataclass
class Column:
    """Boxes below each other."""

    boxes: Sequence[Box]
    gap: int = BELOW

    @property
    def extent(self) -> tuple[int, int]:
        widths, heights = zip(*(box.extent for box in self.boxes), strict=True)
        return max(widths), sum(heights) + self.gap * (len(heights) - 1)

    def place(self, x: int, y: int) -> None:
        for box in self.boxes:
            box.place(x, y)
            y += box.extent[1] + self.gap


@dataclass
class Frame:
    """A titled frame around a box."""

    title: str
    colour: str
    inside: Box
    pos: tuple[int, int] = (0, 0)

    @property
    def extent(self) -> tuple[int, int]:
        width, height = self.inside.extent
        return width + 2 * PAD, height + HEAD + PAD

    def place(self, x: int, y: int) -> None:
        self.pos = x, y
        self.inside.place(x + PAD, y + HEAD)


@dataclass
class Wire:
    """From the right side of a node to the left side of another: where it leaves and arrives."""

    source: tuple[int, int]  # node, output
    start: Point
    target: int
    slot: int
    end: Point
    via: list[Point] = field(default_factory=list)

    def points(self) -> Iterator[Point]:
        """Points along the way, as the front end draws it."""
        stops = [self.start, *self.via, self.end]
        for number, (a, b) in enumerate(zip(stops, stops[1:], strict=False)):
            reach = math.dist(a, b) / 4
            out = reach if number == 0 else 0.0  # the way turns where it leaves and arrives
            back = reach if number == len(stops) - 2 else 0.0
            for step in range(41):
                yield _spline(a, (a[0] + out, a[1]), (b[0] - back, b[1]), b, step / 40)


def _spline(a: Point, b: Point, c: Point, d: Point, t: float) -> Point:
    u = 1 - t
    weights = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
    x, y = (sum(w * p[i] for w, p in zip(weights, (a, b, c, d), strict=True)) for i in (0, 1))
    return x, y


def behind(wire: Wire, nodes: dict[int, Rectangle]) -> set[int]:
    """The nodes, by their ids, that a wire passes behind; its own two are none of them."""
    points = list(wire.points())
    own = (wire.source[0], wire.target)
    return {
        key
        for key, (left, top, right, bottom) in nodes.items()
        if key not in own and any(left < x < right and top < y < bottom for x, y in points)
    }


def lay_wires(wires: Iterable[Wire], nodes: dict[int, Rectangle]) -> None:
    """Lead wires around nodes. Wires of one output share a lane."""
    top = min(rectangle[1] for rectangle in nodes.values()) - HEAD - PAD
    bottom = max(rectangle[3] for rectangle in nodes.values()) + 2 * PAD
    lanes: dict[tuple[int, int], int] = {}
    for wire in wires:
        if not behind(wire, nodes):
            continue
        lane = lanes.setdefault(wire.source, len(lanes))
        ways = [
            way for y in (top - LANE * lane, bottom + LANE * lane) for way in _ways(wire, y, lane)
        ]
        free = [way for way in ways if not behind(replace(wire, via=way), nodes)]
        if not free:
            raise SystemExit(f"No way for the wire from node {wire.source[0]} to {wire.target}.")
        wire.via = free[0]


def _ways(wire: Wire, y: float, lane: int) -> list[list[Point]]:
    """Along a lane, with bends close to the sockets where the way up or down is long."""
    aside = PAD + 2 + LANE / 3 * (lane % 5)
    (left, start), (right, end) = wire.start, wire.end
    along = [(left + aside, y), (right - aside, y)]
    first, last = [(left + aside, start)], [(right - aside, end)]
    return [along, along + last, first + along, first + along + last]


def reroutes(wires: dict[int, Wire]) -> dict[str, Any]:
    """The ways of wires, by their numbers, as a workflow's ``extra`` has them."""
    stops: dict[tuple[int, int, Point], dict[str, Any]] = {}
    extensions = []
    for number, wire in wires.items():
        parent: dict[str, Any] = {}
        for point in wire.via:
            own = {"id": len(stops) + 1, "pos": list(point), "linkIds": []}
            if parent:
                own["parentId"] = parent["id"]
            parent = stops.setdefault((*wire.source, point), own)
            parent["linkIds"].append(number)
        if parent:
            extensions.append({"id": number, "parentId": parent["id"]})
    return {"reroutes": list(stops.values()), "linkExtensions": extensions} if stops else {}
