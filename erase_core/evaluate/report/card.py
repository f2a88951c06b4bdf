"""A card to publish with a LoRA: what it does, measured, in pictures, and a workflow to try it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...files import read_picture, write_json
from ...methods.base import find_method
from ...pictures.grid import Row, grid
from ...writing import atomic
from ..exam import Exam
from ..marks import Role
from .paper import REHEARSAL, summaries
from .plots import figure
from .summary import KINDS
from .workflow import workflow

SHOWN: dict[Role, str] = {"erased": "erased", "near": "a relative", "other": "something else"}
PICTURES = 2  # of each prompt's role in the sheet
CELL = 128  # pixels of a picture in the sheet
FRONT = """\
---
tags:
- text-to-image
- lora
- concept-erasure
- eraseanything
---
"""


@dataclass(frozen=True)
class Card:
    """What is told of an eraser of ``concept``.

    ``files`` are the model's, by part (none for the miniature); ``shown`` exams with the folders of
    their pictures without and with the eraser; ``results`` what the plan measured.
    """

    concept: str
    model: str
    lora: Path | None
    files: Mapping[str, str]
    how: Mapping[str, Any]
    prompt: str
    shown: Sequence[tuple[Exam[Any], Path, Path]]
    results: Mapping[str, Any]


def write_card(folder: Path, card: Card, tables: str) -> None:
    """README.md, the LoRA, sheet.png, kinds.png, explicit.png and workflow.json.

    A README.md that says something else stays, for a person has written in it: the new text lies
    beside it in README.new.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = [FRONT + f"# An eraser of “{card.concept}” for {card.model}"]
    told += [REHEARSAL] if card.results["rehearsal"] else []
    if card.lora is not None:
        with atomic(folder / card.lora.name) as temporary:
            shutil.copyfile(card.lora, temporary)
        told.append(_use(card, card.lora.name, folder))
    sheet = _sheet(card)
    if sheet is not None:
        with atomic(folder / "sheet.png") as temporary:
            sheet.save(temporary, "PNG")
        told.append("![The same seeds without and with erasers](sheet.png)")
    told += _figures(folder, card.results)
    told.append(tables)
    told.append("Before you publish: name the base model and its licence at the top of this file.")
    text, path = "\n\n".join(told) + "\n", folder / "README.md"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        path = folder / "README.new.md"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _use(card: Card, name: str, folder: Path) -> str:
    """How the LoRA is loaded; the workflow is written beside it."""
    made = workflow(card.files, name, card.prompt, card.how)
    line = f"`{name}` goes into `ComfyUI/models/loras`; *Load LoRA* or diffusers load it."
    if made is not None:
        write_json(folder / "workflow.json", made)
        line += " Drop `workflow.json` on ComfyUI to draw without and with it."
    return line


def _sheet(card: Card) -> Image.Image | None:
    """A concept a band: the same seeds without and with its eraser."""
    rows = []
    for exam, before, after in card.shown:
        start, section = 0, f"“{exam.title}”"
        for role, asked in exam.roles.items():
            if role in SHOWN:
                groups = [_pictures(folder, start, len(asked)) for folder in (before, after)]
                if all(groups):
                    rows.append(Row(asked[0].prompt, groups, section=section, note=SHOWN[role]))
                    section = ""
            start += len(asked)
    return grid(rows, ("without", "with the eraser"), cell=CELL) if rows else None


def _pictures(folder: Path, start: int, count: int) -> list[Image.Image]:
    """The first pictures of a role; none where one is missing."""
    files = [folder / f"{row:06}.png" for row in range(start, start + PICTURES)]
    whole = count >= PICTURES and all(file.exists() for file in files)
    return [read_picture(file) for file in files] if whole else []


def _figures(folder: Path, results: Mapping[str, Any]) -> list[str]:
    """Plots of the kinds and of the explicit concept, and the lines that show them."""
    told = []
    if results.get("kinds"):
        with figure(folder / "kinds.png", 1, len(KINDS)) as panels:
            for axes, kind in zip(panels, KINDS, strict=True):
                own = [row for row in results["kinds"] if row["kind"] == kind]
                _bars(axes, kind, summaries(own) if own else {})
        told.append("![Acc_e, Acc_ir and Acc_g by kind of concept](kinds.png)")
    if results.get("explicit"):
        with figure(folder / "explicit.png") as (axes,):
            _detections(axes, results["explicit"])
        told.append("![Pictures that show the explicit concept](explicit.png)")
    return told


def _bars(axes: Any, kind: str, found: Mapping[str, Any]) -> None:
    """Acc_e, Acc_ir and Acc_g of every method, with intervals."""
    rates = ("acc_e", "acc_ir", "acc_g")
    for number, (method, means) in enumerate(found.items()):
        there = [(x, means[rate]) for x, rate in enumerate(rates) if rate in means]
        values = [each.value for _, each in there]
        errors = [
            [each.value - each.low for _, each in there],
            [each.high - each.value for _, each in there],
        ]
        places = [x + number * 0.25 for x, _ in there]
        axes.bar(places, values, 0.22, yerr=errors, capsize=2, label=find_method(method).label)
    axes.set_title(kind)
    axes.set_xticks([0.25, 1.25, 2.25], ["Acc_e", "Acc_ir", "Acc_g"])
    axes.set_ylim(0, 1)
    if found:
        axes.legend(fontsize=7)


def _detections(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """The share of pictures with any, of every method, with its interval."""
    for number, row in enumerate(rows):
        value, (low, high) = row["any"]["value"] or 0.0, row["any"]["interval"]
        axes.barh(number, value, xerr=[[max(0, value - low)], [max(0, high - value)]], capsize=3)
    axes.set_yticks(range(len(rows)), [find_method(row["method"]).label for row in rows])
    axes.set_xlabel("share of pictures that show it")
    axes.invert_yaxis()
