"""Contact sheets: what every method leaves of a concept, and of what should stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...methods.base import find_method
from ...pictures.grid import Row, grid
from ...pictures.sheet import Picture
from ...writing import atomic
from ..exam import Exam, Question
from ..marks import Role
from .summary import KINDS

SHOWN: tuple[Role, ...] = ("erased", "near", "other")  # roles of an exam
HEIGHT = 80  # pixels of a picture in a sheet


def strip(exam: Exam[Question], pictures: Tensor) -> Picture:
    """The first picture of each role in SHOWN side by side, of uint8 (N, H, W, 3) in the exam's
    order."""
    roles = [role for role, asked in exam.roles.items() for _ in asked]
    shown = [pictures[roles.index(role)] for role in SHOWN if role in roles]
    return Image.fromarray(torch.cat(shown, dim=1).cpu().numpy())


def write_sheets(folder: Path, strips: Mapping[Path, Mapping[str, Any]]) -> list[Path]:
    """A sheet a kind, method by concept, of the files of strips and the cells they show."""
    written = []
    for kind in KINDS:
        found: dict[str, dict[str, Path]] = {}
        for path, cell in strips.items():
            if cell["kind"] == kind and path.exists():
                found.setdefault(cell["method"], {}).setdefault(cell["concepts"][0], path)
        if found:
            written.append(folder / f"sheet-{kind}.png")
            with atomic(written[-1]) as temporary:
                _sheet(found).save(temporary, "PNG")
    return written


def _sheet(strips: Mapping[str, Mapping[str, Path]]) -> Picture:
    """A line a method, a column a concept, white where a method has none."""
    concepts = list(dict.fromkeys(name for own in strips.values() for name in own))
    width, height = Image.open(next(iter(next(iter(strips.values())).values()))).size
    rows = [
        Row(find_method(method).label, [[_open(own.get(name), width, height)] for name in concepts])
        for method, own in strips.items()
    ]
    title = "The concept, a relative, something else"
    return grid(rows, concepts, title=title, cell=HEIGHT)


def _open(path: Path | None, width: int, height: int) -> Picture:
    return Image.open(path) if path else Image.new("RGB", (width, height), "white")
