"""The results of a benchmark on disk: a JSON file a cell, and a CSV file of all for those who read.

What one writes the other reads, so that a benchmark can go on from a published one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import EraseError
from ...files import read_json, read_text
from ...methods.base import methods, plain_name
from ...writing import atomic
from ..report.summary import Row

PARTS = ("cells", "attacks", "frechet")  # folders of JSON files, and names of CSV files
_NAMES = ("method", "concepts", "concept", "seed", "attack")  # together they name a row
_TEXTS = ("method", "kind", "thing", "concept", "attack", "answers")
_JOIN = " + "


def read_rows(folder: Path, part: str = "cells", beside: Path | None = None) -> list[Row]:
    """Every row of a part: those of ``folder``, and those that only the CSV file in ``beside`` has.

    Methods are in their order, each followed by itself with other settings.
    """
    rows = {_key(row): row for row in (read_csv(beside / f"{part}.csv") if beside else [])}
    rows |= {_key(row): row for row in read_files(folder, part).values()}
    return sorted(rows.values(), key=_order())


def read_files(folder: Path, part: str = "cells") -> dict[Path, Row]:
    """The rows that were measured into ``folder``, in the same order, by the file of each."""
    rows = {path: _known(read_json(path), path) for path in (folder / part).rglob("*.json")}
    place = _order()
    return dict(sorted(rows.items(), key=lambda item: place(item[1])))


def _known(row: Any, path: Path) -> Row:
    """``row`` under its method's name of today; EraseError, naming ``path``, if there is none."""
    method = row.get("method") if isinstance(row, Mapping) else None
    name = plain_name(method) if isinstance(method, str) and method.strip() else ""
    if name.split()[:1] not in [[known] for known in methods()]:
        raise EraseError(f"{path} is no table or cell of a benchmark; remove it from the folder.")
    return {**row, "method": name}


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in _NAMES)


def _order() -> Callable[[Row], tuple[int, tuple[str, ...]]]:
    """What to sort rows by."""
    order = list(methods())
    return lambda row: (order.index(row["method"].split()[0]), _key(row))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Every row a line; rates as fractions with their counts, settings as JSON."""
    told = [{"settings": json.dumps(row["settings"])} if "settings" in row else {} for row in rows]
    plain = [_flat({**row, **more}) for row, more in zip(rows, told, strict=True)]
    with atomic(path) as temporary:
        pd.DataFrame(plain, dtype=object).to_csv(temporary, index=False, lineterminator="\r\n")


def read_csv(path: Path) -> list[Row]:
    """The rows of a file of :func:`write_csv`; none where there is no file. What had no value is
    left out. EraseError when the file is anything else."""
    if not path.exists():
        return []
    try:
        lines = pd.read_csv(io.StringIO(read_text(path)), dtype=str, keep_default_na=False)
        return [_known(_nested(line), path) for line in lines.to_dict("records")]
    except (ValueError, TypeError, AttributeError) as error:
        raise EraseError(f"{path} is no table of a benchmark; choose its folder.") from error


def _flat(row: Row, prefix: str = "") -> dict[str, Any]:
    """Nested values under joined names: "untouched.acc_e.value"."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            joined = _JOIN.join(map(str, value)) if isinstance(value, list) else value
            found[prefix + name] = joined
    return found


def _nested(line: Mapping[str, str]) -> Row:
    """The row that :func:`_flat` flattened."""
    row: dict[str, Any] = {}
    for name, text in line.items():
        if text:
            *path, last = name.split(".")
            place = row
            for part in path:
                place = place.setdefault(part, {})
            place[last] = _value(last, text)
    return row


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if name == "concepts":
        return text.split(_JOIN)
    if name == "interval":
        return [float(part) for part in text.split(_JOIN)]
    return json.loads(text)
