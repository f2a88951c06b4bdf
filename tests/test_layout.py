"""The workflows of ``workflows/`` fit on a screen, and nothing on them hides anything."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from math import dist
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
# The front end opens a template on three quarters of the window, here of 1600 x 1000 pixels, and
# writes no texts on nodes that are drawn smaller than 8 / 14.
WIDEST, HIGHEST = (0.75 * side * 14 / 8 for side in (1600, 1000))
TITLE, SOCKET = 30, 20
Rectangle = tuple[float, float, float, float]


def saved(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_can_be_read_at_first_sight(name: str) -> None:
    graph = saved(name)
    boxes = [*map(frame, graph["groups"]), *map(drawn, graph["nodes"])]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    assert max(rights) - min(lefts) < WIDEST
    assert max(bottoms) - min(tops) < HIGHEST


@pytest.mark.parametrize("name", NAMES)
def test_every_node_lies_apart_in_a_titled_frame(name: str) -> None:
    graph = saved(name)
    frames, nodes = [*map(frame, graph["groups"])], [*map(drawn, graph["nodes"])]
    assert all(group["title"] for group in graph["groups"])
    for boxes in (frames, nodes):
        assert not [pair for pair in combinations(boxes, 2) if touch(*pair)]
    for item, box in zip(graph["nodes"], nodes, strict=True):
        around = [f for f in frames if touch(f, box)]
        assert len(around) == (item["type"] != "MarkdownNote")
        assert all(f[0] < box[0] and f[1] < box[1] for f in around)
        assert all(box[2] < f[2] and box[3] < f[3] for f in around)


@pytest.mark.parametrize("name", NAMES)
def test_no_wire_passes_behind_a_node(name: str) -> None:
    graph = saved(name)
    nodes = {item["id"]: item for item in graph["nodes"]}
    stops = {stop["id"]: stop for stop in graph["extra"].get("reroutes", [])}
    last = {link["id"]: link["parentId"] for link in graph["extra"].get("linkExtensions", [])}
    for number, source, output, target, slot, _ in graph["links"]:
        way = [socket(nodes[source], output, right=True)]
        stop, via = last.get(number), []
        while stop is not None:
            via.append(tuple(stops[stop]["pos"]))
            assert number in stops[stop]["linkIds"]
            stop = stops[stop].get("parentId")
        way += [*reversed(via), socket(nodes[target], slot, right=False)]
        for key, item in nodes.items():
            left, top, right, bottom = drawn(item)
            hidden = [p for p in curve(way) if left < p[0] < right and top < p[1] < bottom]
            assert not hidden or key in (source, target), (nodes[source]["type"], item["type"])


def frame(group: dict[str, Any]) -> Rectangle:
    left, top, width, height = group["bounding"]
    return left, top, left + width, top + height


def drawn(node: dict[str, Any]) -> Rectangle:
    """A node with its title, which lies above its position."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y if node["flags"].get("collapsed") else y + height


def socket(node: dict[str, Any], number: int, right: bool) -> tuple[float, float]:
    x = node["pos"][0] + (node["size"][0] if right else 0)
    below = -TITLE / 2 if node["flags"].get("collapsed") else SOCKET * (number + 0.7)
    return x, node["pos"][1] + below


def curve(way: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A wire as LiteGraph draws it: level at both sockets, nearly straight between its bends."""
    points = []
    for number, (a, b) in enumerate(pairwise(way)):
        level = dist(a, b) / 4
        c = (a[0] + level, a[1]) if number == 0 else a
        d = (b[0] - level, b[1]) if number == len(way) - 2 else b
        for t in (step / 50 for step in range(51)):
            shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x, y = (
                sum(s * p[i] for s, p in zip(shares, (a, c, d, b), strict=True)) for i in (0, 1)
            )
            points.append((x, y))
    return points


def touch(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
