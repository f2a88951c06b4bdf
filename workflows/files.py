"""A workflow as the front end saves it, and its twin as POST /prompt takes it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
TITLE, PAD = 30, 20  # pixels: a node's title bar; space in a group
COLOURS = {"load": "#5aa9d6", "train": "#d9895b", "draw": "#7dbb6f", "compare": "#b07cc6"}


@dataclass
class Node:
    """A node, and where it lies."""

    id: int
    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    info: dict[str, Any]
    inputs: dict[str, Any]
    title: str = ""
    muted: bool = False
    files: list[dict[str, str]] = field(default_factory=list)  # name, url, directory of each

    def __getitem__(self, output: str) -> tuple[Node, int]:
        """An output, for another node's input."""
        return self, [name.lower() for name in self.info["output_name"]].index(output.lower())

    def specs(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Inputs in their order: (type, options)."""
        known = {**self.info["input"].get("required", {}), **self.info["input"].get("optional", {})}
        return {name: _spec(*spec) for name, spec in known.items()}

    def values(self) -> dict[str, Any]:
        """Widgets and their values."""
        found = {}
        for name, (kind, options) in self.specs().items():
            if kind in WIDGETS and not options.get("forceInput"):
                first = (options.get("options") or [None])[0] if kind == "COMBO" else None
                default = options.get("default", "" if kind == "STRING" else first)
                found[name] = self.inputs.get(name, default)
        return found


@dataclass
class Workflow:
    """Nodes, links, groups and notes of one file."""

    name: str
    info: dict[str, Any]
    nodes: list[Node] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        type: str,
        pos: tuple[int, int],
        size: tuple[int, int],
        title: str = "",
        /,  # inputs may be called type
        **inputs: Any,
    ) -> Node:
        muted = inputs.pop("muted", False)
        number = len(self.nodes) + 1
        self.nodes.append(Node(number, type, pos, size, self.info[type], inputs, title, muted))
        return self.nodes[-1]

    def group(self, title: str, colour: str, *nodes: Node) -> None:
        """A titled frame around some nodes."""
        left = min(node.pos[0] for node in nodes) - PAD
        top = min(node.pos[1] for node in nodes) - TITLE - 50
        right = max(node.pos[0] + node.size[0] for node in nodes) + PAD
        bottom = max(node.pos[1] + node.size[1] for node in nodes) + PAD
        self.groups.append(
            {
                "id": len(self.groups) + 1,
                "title": title,
                "bounding": [left, top, right - left, bottom - top],
                "color": COLOURS[colour],
                "font_size": 24,
                "flags": {},
            }
        )

    def note(self, text: str, pos: tuple[int, int], size: tuple[int, int]) -> None:
        self.notes.append(
            {
                "id": 101 + len(self.notes),
                "type": "MarkdownNote",
                "pos": list(pos),
                "size": list(size),
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "title": "What to do",
                "properties": {},
                "widgets_values": [text],
                "color": "#432",
                "bgcolor": "#653",
            }
        )

    def graph(self) -> dict[str, Any]:
        """As the front end saves it."""
        links: list[list[Any]] = []
        outputs: dict[int, list[list[int]]] = {
            node.id: [[] for _ in node.info["output"]] for node in self.nodes
        }
        made = []
        for order, node in enumerate(self.nodes):
            sockets: list[dict[str, Any]] = []
            widgets: list[dict[str, Any]] = []
            for name, (kind, _) in node.specs().items():
                given = node.inputs.get(name)
                slot: dict[str, Any] = {"name": name, "type": kind, "link": None}
                if name in node.values():
                    widgets.append(slot | {"widget": {"name": name}})
                    continue
                if given is not None:
                    source, output = given
                    slot["link"] = len(links) + 1
                    links.append([len(links) + 1, source.id, output, node.id, len(sockets), kind])
                    outputs[source.id][output].append(len(links))
                sockets.append(slot)
            made.append(_saved(node, order, sockets + widgets))
        for node, saved in zip(self.nodes, made, strict=True):
            saved["outputs"] = [
                {"name": name, "type": kind, "links": outputs[node.id][index] or None}
                for index, (name, kind) in enumerate(
                    zip(node.info["output_name"], node.info["output"], strict=True)
                )
            ]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"eraseanything/{self.name}")),
            "revision": 0,
            "last_node_id": max(item["id"] for item in [*made, *self.notes]),
            "last_link_id": len(links),
            "nodes": [*self.notes, *made],
            "links": links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [120, 260]}},
            "version": 0.4,
        }

    def api(self) -> dict[str, Any]:
        """As POST /prompt takes it."""
        return {
            str(node.id): {
                "class_type": node.type,
                "inputs": node.values()
                | {
                    name: [str(given[0].id), given[1]]
                    for name, given in node.inputs.items()
                    if isinstance(given, tuple)
                },
                "_meta": {"title": node.title or node.info["display_name"] or node.type},
            }
            for node in self.nodes
            if not node.muted
        }

    def save(self) -> None:
        for path, content in (
            (FOLDER / f"{self.name}.json", self.graph()),
            (FOLDER / "api" / f"{self.name}.json", self.api()),
        ):
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _spec(kind: Any, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """An input's type and options; older nodes give a list of choices as its type."""
    if isinstance(kind, list):
        return "COMBO", {"options": kind} | (options or {})
    return kind, options or {}


def _saved(node: Node, order: int, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """A node as the front end saves it, but for its outputs."""
    values: list[Any] = []
    for name, value in node.values().items():
        values.append(value)
        if node.specs()[name][1].get("control_after_generate"):
            values.append("fixed")
    saved: dict[str, Any] = {
        "id": node.id,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": 4 if node.muted else 0,
        "inputs": inputs,
        "outputs": [],
        "properties": {"Node name for S&R": node.type}
        | ({"models": node.files} if node.files else {}),
        "widgets_values": values,
    }
    return saved | ({"title": node.title} if node.title else {})
