"""The field's prompt files (I2P, COCO, any list) on any Flux: NudeNet, CLIP score, FID.

What a person needs beside the model: the prompt file, ``pip install nudenet`` for detections, and
a folder with a CLIP model (``transformers``' layout) for score and FID.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import EraseError
from ...files import parse_json, read_text
from ..judges.clip import Clip, clip_score
from ..judges.nudenet import exposed
from .harm import frechet

_TEXT, _SEED = ("prompt", "caption", "text"), ("evaluation_seed", "sd_seed", "seed")


class Prompt(NamedTuple):
    """A prompt and the seed of its noise."""

    text: str
    seed: int


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, line breaks in them as spaces.

    A CSV file has a column ``prompt``, ``caption`` or ``text`` and, perhaps, one of seeds
    (``evaluation_seed``). JSON is a list of texts or of objects with those fields, which may be
    under ``annotations``, as in COCO's files; JSONL has one of them a line. Any other text has a
    prompt a line. Where there is no seed, line or row n has seed n.

    Raises
    ------
    EraseError
        When the file is missing, damaged, has no such column, or no prompt.
    """
    text, kind = read_text(path), path.suffix.lower()
    if kind == ".csv":
        rows = _from_csv(path, text)
    elif kind in (".json", ".jsonl") or _is_list(text):
        rows = _from_json(path, text, lines=kind == ".jsonl")
    else:
        rows = [{_TEXT[0]: line} for line in text.splitlines()]
    texts = [" ".join((_first(row, _TEXT) or "").split()) for row in rows]
    found = [
        Prompt(told, _seed(_first(row, _SEED), n))
        for n, (told, row) in enumerate(zip(texts, rows, strict=True))
        if told
    ]
    if not found:
        raise EraseError(f"There is no prompt in {path}; write one a line.")
    return found


def _from_csv(path: Path, text: str) -> list[dict[str, Any]]:
    """The rows of a table that have a prompt; its cells may hold line breaks in quotes."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise EraseError(f"{path} is no CSV ({error}); look at line {reader.line_num}.") from error
    if not {*_TEXT} & {*(reader.fieldnames or ())}:
        raise EraseError(f"{path} has no column named prompt; rename the one that has them.")
    return [row for row in rows if (_first(row, _TEXT) or "").strip()]


def _is_list(text: str) -> bool:
    """Whether a text, whatever it is called, is a JSON list."""
    try:
        return text.lstrip().startswith("[") and isinstance(parse_json(text), list)
    except ValueError:
        return False


def _from_json(path: Path, text: str, lines: bool) -> list[dict[str, Any]]:
    """A row for each item of a list, or for each of ``lines``."""
    try:
        if lines:
            value = [parse_json(line) for line in text.splitlines() if line.strip()]
        else:
            value = parse_json(text)
    except ValueError as error:
        raise EraseError(f"Cannot read {path} as JSON ({error}); check the file.") from error
    items = value.get("annotations") if isinstance(value, dict) else value
    rows = [{_TEXT[0]: item} if isinstance(item, str) else item for item in _list(items)]
    if not all(isinstance(row, dict) and isinstance(_first(row, _TEXT), str) for row in rows):
        raise EraseError(f"{path} is no list of prompts, or of objects with a prompt each.")
    return rows


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """What a row has under the first of the names that it knows."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _seed(told: Any, otherwise: int) -> int:
    """A seed that a generator takes, else ``otherwise``."""
    text = str(told).strip()
    return int(text) if text.isdecimal() and len(text) < 20 and int(text) < 2**63 else otherwise


class Yardstick:
    """Measures pictures (N, H, W, 3) uint8 of the same prompts, the untouched model's first.

    ``nude`` counts detections as ``exposed``; ``clip`` gives ``clip_score``, and
    ``clip_distance`` between its features of the pictures and of the untouched model's.
    """

    def __init__(self, prompts: Sequence[Prompt], *, nude: bool, clip: Clip | None) -> None:
        self.nude, self.clip = nude, clip
        self._texts = clip.texts([prompt.text for prompt in prompts]) if clip else None
        self._untouched: Tensor | None = None

    def measure(self, pictures: Tensor) -> dict[str, Any]:
        """What can be said of them."""
        row: dict[str, Any] = {"pictures": len(pictures)}
        if self.nude:
            found = exposed(pictures)
            row |= {"exposed": found.total(), "classes": dict(sorted(found.items()))}
        if self.clip is not None and self._texts is not None:
            features = self.clip.pictures(pictures)
            if self._untouched is None:
                self._untouched = features
            row["clip_score"] = round(clip_score(features, self._texts), 3)
            if len(pictures) > 1:
                row["clip_distance"] = round(frechet(features, self._untouched), 5)
        return row
