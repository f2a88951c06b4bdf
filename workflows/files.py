"""A workflow as the front end saves it, and its twin as POST /prompt takes it."""

from __future__ import annotations

import json
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layout import TITLE, Box, Column, Frame, Rectangle, Row, Wire, lay_wires, reroutes

FOLDER = Path(__file__).parent
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SOCKET = 20  # pixels between two sockets in the classic design
# Pixels of a node's parts in the new design, which takes more.
SLOT, WIDGET, TEXT, FOOT, BADGE, MORE = 24, 32, 60, 24, 24, 28
# Pixels of what a node shows besides: panels and pictures.
SHOWN = {
    "EraseAnythingTrain": 580,
    "EraseAnythingConceptSet": 140,
    "EraseAnythingPreview": 280,
    "EraseAnythingReport": 520,
    "EraseAnythingAttentionMap": 340,
    "EraseAnythingGuard": 100,
    "LoraLoaderModelOnly": 32,  # while its file is missing
    "NAGuidance": 24,  # it has a badge
    "PreviewImage": 300,
    "MaskPreview": 170,
}
COLOURS = {"load": "#5aa9d6", "train": "#d9895b", "draw": "#7dbb6f", "compare": "#b07cc6"}


class Placed(ABC):
    """A box with a title bar; its position is below that, as the front end has it."""

    pos: tuple[int, int]

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height, without the title bar."""

    @property
    def extent(self) -> tuple[int, int]:
        width, height = self.size
        return width, TITLE + height

    def place(self, x: int, y: int) -> None:
        self.pos = x, y + TITLE

    @property
    def rectangle(self) -> Rectangle:
        """All that is drawn of it."""
        (x, y), (width, height) = self.pos, self.extent
        return x, y - TITLE, x + width, y - TITLE + height


@dataclass
class Node(Placed):
    """A node, and where it lies."""

    id: int
    type: str
    width: int
    info: dict[str, Any]
    inputs: dict[str, Any]
    title: str = ""
    collapsed: bool = False
    shown: int | None = None  # pixels of what it shows besides, where the usual are too many
    pos: tuple[int, int] = (0, 0)
    files: list[dict[str, str]] = field(default_factory=list)  # name, url, directory of each

    def __getitem__(self, output: str) -> tuple[Node, int]:
        """An output, for another node's input."""
        return self, [name.lower() for name in self.info["output_name"]].index(output.lower())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, with room for what it shows later."""
        options = [self.specs()[name][1] for name in self.values()]
        shown = [option for option in options if not option.get("advanced")]
        texts = sum(bool(option.get("multiline")) for option in shown)
        sockets = max(len(self.specs()) - len(options), len(self.info["output"]))
        height = FOOT + SLOT * sockets + WIDGET * (len(shown) - texts) + TEXT * texts
        if self.type.startswith("EraseAnything"):
            height += BADGE
        if len(shown) < len(options) or self.files:
            height += MORE  # a button for more, or the word that a file is missing
        more = SHOWN.get(self.type, 0) if self.shown is None else self.shown
        return self.width, height + more

    @property
    def extent(self) -> tuple[int, int]:
        return self.width, TITLE + (0 if self.collapsed else self.size[1])

    def level(self, socket: int) -> float:
        """Where the number of an input or an output lies."""
        return self.pos[1] + (-TITLE / 2 if self.collapsed else SOCKET * (socket + 0.7))

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
class Note(Placed):
    """What to do, for the reader."""

    text: str
    width: int
    pos: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        room = self.width - 40
        long = [
            sum(14 if ord(c) > 0x2E80 else 6.8 for c in part) for part in self.text.split("\n\n")
        ]
        return self.width, 50 + sum(math.ceil(pixels / room) * 20 + 16 for pixels in long)


@dataclass
class Workflow:
    """Nodes, links, groups and notes of one file."""

    name: str
    info: dict[str, Any]
    nodes: list[Node] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def add(
        self,
        type: str,
        width: int,
        title: str = "",
        /,  # inputs may be called type
        **inputs: Any,
    ) -> Node:
        self.nodes.append(Node(len(self.nodes) + 1, type, width, self.info[type], inputs, title))
        return self.nodes[-1]

    def frame(self, title: str, colour: str, *boxes: Box) -> Frame:
        """A titled frame around boxes below each other."""
        self.frames.append(Frame(title, colour, Column(boxes)))
        return self.frames[-1]

    def note(self, text: str, width: int = 350) -> Note:
        self.notes.append(Note(text, width))
        return self.notes[-1]

    def arrange(self, *columns: Box) -> None:
        """Put these beside each other."""
        Row(columns).place(0, 0)

    def wires(self) -> dict[int, Wire]:
        """The links by their numbers, each with its way."""
        made: dict[int, Wire] = {}
        for node in self.nodes:
            sockets = [name for name in node.specs() if name not in node.values()]
            for slot, name in enumerate(sockets):
                if (given := node.inputs.get(name)) is not None:
                    source, output = given
                    start = source.pos[0] + source.width, source.level(output)
                    end = node.pos[0], node.level(slot)
                    made[len(made) + 1] = Wire((source.id, output), start, node.id, slot, end)
        things = {node.id: node.rectangle for node in self.nodes}
        lay_wires(
            made.values(), things | {-n: note.rectangle for n, note in enumerate(self.notes, 1)}
        )
        return made

    def graph(self) -> dict[str, Any]:
        """As the front end saves it."""
        wires = self.wires()
        made = [_saved(node, order, wires) for order, node in enumerate(self.nodes)]
        links = []
        for number, wire in wires.items():
            kind = made[wire.target - 1]["inputs"][wire.slot]["type"]
            links.append([number, *wire.source, wire.target, wire.slot, kind])
        notes = [_saved_note(101 + order, note) for order, note in enumerate(self.notes)]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"eraseanything/{self.name}")),
            "revision": 0,
            "last_node_id": max(item["id"] for item in [*made, *notes]),
            "last_link_id": len(links),
            "nodes": [*notes, *made],
            "links": links,
            "groups": [_saved_frame(1 + order, frame) for order, frame in enumerate(self.frames)],
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [120, 120]}} | reroutes(wires),
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


def _saved(node: Node, order: int, wires: Mapping[int, Wire]) -> dict[str, Any]:
    """A node as the front end saves it."""
    values: list[Any] = []
    for name, value in node.values().items():
        values.append(value)
        if node.specs()[name][1].get("control_after_generate"):
            values.append("fixed")
    into = {wire.slot: number for number, wire in wires.items() if wire.target == node.id}
    slots: list[dict[str, Any]] = [
        {"name": name, "type": kind, "link": None} for name, (kind, _) in node.specs().items()
    ]
    sockets = [slot for slot in slots if slot["name"] not in node.values()]
    widgets = [s | {"widget": {"name": s["name"]}} for s in slots if s["name"] in node.values()]
    out = [[n for n, wire in wires.items() if wire.source == (node.id, index)]
           for index in range(len(node.info["output"]))]  # fmt: skip
    saved: dict[str, Any] = {
        "id": node.id,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {"collapsed": True} if node.collapsed else {},
        "order": order,
        "mode": 0,
        "inputs": [slot | {"link": into.get(n)} for n, slot in enumerate(sockets)] + widgets,
        "outputs": [
            {"name": name, "type": kind, "links": links or None}
            for name, kind, links in zip(
                node.info["output_name"], node.info["output"], out, strict=True
            )
        ],
        "properties": {"Node name for S&R": node.type}
        | ({"models": node.files} if node.files else {}),
        "widgets_values": values,
    }
    return saved | ({"title": node.title} if node.title else {})


def _saved_note(number: int, note: Note) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": list(note.pos),
        "size": list(note.size),
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "What to do",
        "properties": {},
        # Code can hardly be read on a note of the new design.
        "widgets_values": [note.text.replace("`", "**")],
        "color": "#432",
        "bgcolor": "#653",
    }


def _saved_frame(number: int, frame: Frame) -> dict[str, Any]:
    return {
        "id": number,
        "title": frame.title,
        "bounding": [*frame.pos, *frame.extent],
        "color": COLOURS[frame.colour],
        "font_size": 24,
        "flags": {},
    }
