"""A file that was made before, exactly as one is ordered now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..concepts.sets import ConceptSet
from ..erasers.earlier import Earlier
from ..erasers.metadata import Base
from ..files import parse_json
from ..models.base import PATCHED, Model
from ..settings import Settings
from ..tensors import read_metadata
from .base import Method


def day_made(
    file: Path,
    model: Model,
    method: Method,
    concepts: ConceptSet,
    settings: Settings,
    seed: int,
    earlier: Earlier | None = None,
) -> str:
    """The day (UTC) on which ``file`` was made from this very order, "" if it was not. ``earlier``
    is the eraser that the order starts from.

    It is then finished, and made without pictures. The text encoders are taken to be the same,
    since no file tells them. A big model is hashed (a minute, once) only where all else is equal.
    """
    told = read_metadata(file)
    numbers = {"text_tokens": model.text.length, "pictures": 0}
    wanted = {"stopped": "done", "method": method.name, "base_weights": model.weights}
    wanted |= {name: str(value) for name, value in numbers.items()}
    if method.added or model.weights == PATCHED or not _same(told, wanted):
        return ""
    if told.get("erase.extends", "") != (earlier.sha256 if earlier else ""):
        return ""
    ordered = settings.to_dict() | {"seed": seed}
    idle = {name: ordered[name] for name, about in settings.about().items() if not about.matters}
    if _json(told, "settings") | idle != ordered or _json(told, "concepts") != concepts.to_json():
        return ""
    base = Base.of(model).sha256
    return told.get("erase.date", "") if base and _same(told, {"base_sha256": base}) else ""


def is_part(partial: Mapping[str, str], whole: Mapping[str, str]) -> bool:
    """Whether one file's metadata is of a run that, going on, would have made the other's: the same
    order but for its steps, and no more iterations. Never where something went in that no file
    tells."""
    names = ("base_sha256", "base_weights", "concepts", "method", "pictures")
    extended = partial.get("erase.extends") == whole.get("erase.extends")
    wanted = {name: whole.get(f"erase.{name}", "") for name in names}
    told = wanted["pictures"] == "0" and wanted["base_weights"] != PATCHED
    steps = {"steps": 0}
    same = _json(partial, "settings") | steps == _json(whole, "settings") | steps
    same = same and extended and _iterations(partial) <= _iterations(whole)
    return told and same and bool(wanted["base_sha256"]) and _same(partial, wanted)


def _same(told: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(told.get(f"erase.{name}") == value for name, value in wanted.items())


def _iterations(told: Mapping[str, str]) -> int:
    """How many iterations the history tells of."""
    columns = _json(told, "history").values()
    return max((len(column) for column in columns if isinstance(column, list)), default=0)


def _json(told: Mapping[str, str], name: str) -> dict[str, Any]:
    """A part of the metadata; empty where it is missing or damaged."""
    try:
        value = parse_json(told.get(f"erase.{name}", "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
