"""The field's prompt files, as they are published: I2P, COCO, any list."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import EraseError
from ...files import parse_json, read_text

# Columns of prompts, in any case. The first that a table has is taken: an attack's own before the
# prompts that it set out from, English before other languages, whole sentences before bare names.
_TEXT = ("adv_prompt", "sensitive prompt", "prompt", "caption", "text", "original", "concept")
_SEED = ("evaluation_seed", "sd_seed", "seed")
_SENTENCE = 3  # words in a cell that is no column's name


class Prompt(NamedTuple):
    """A prompt and the seed of its noise."""

    prompt: str
    seed: int


def read_prompts(path: Path, column: str = "") -> list[Prompt]:
    """The prompts of a file, line breaks in them as spaces.

    A CSV file, parted by commas, semicolons or tabs, has a column of prompts under one of the names
    that the field's files have, or under ``column``. It may have one of seeds, too
    (``evaluation_seed``). JSON is a list of texts or of objects with those fields, which may be
    under ``annotations``, as in COCO's files; JSONL has one of them a line. Any other text, and a
    CSV file that begins with a sentence, has a prompt a line. Where there is no seed, line or row n
    has seed n.

    Raises
    ------
    EraseError
        When the file is missing, damaged, has no such column, or no prompt.
    """
    text, kind, wanted = read_text(path), path.suffix.lower(), _wanted(column)
    if kind in (".csv", ".tsv"):
        rows = _from_csv(path, text, wanted)
    elif kind in (".json", ".jsonl") or _is_list(text):
        rows = _from_json(path, text, wanted, lines=kind == ".jsonl")
    else:
        rows = [{wanted[0]: line} for line in text.splitlines()]
    texts = [" ".join((_first(row, wanted) or "").split()) for row in rows]
    found = [
        Prompt(told, _seed(_first(row, _SEED), n))
        for n, (told, row) in enumerate(zip(texts, rows, strict=True))
        if told
    ]
    if not found:
        raise EraseError(f"There is no prompt in {path}; write one a line.")
    return found


def _wanted(column: str) -> tuple[str, ...]:
    return (_name(column),) if column else _TEXT


def _name(column: str) -> str:
    return column.strip().casefold()


def _from_csv(path: Path, text: str, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a table that have a prompt; its cells may hold line breaks in quotes."""
    first = text.split("\n", 1)[0]
    heads = {mark: _cells(first, mark) for mark in ",;\t"}
    mark = next((m for m, names in heads.items() if {*wanted} & {*map(_name, names)}), ",")
    names = [_name(cell) for cell in heads[mark]]
    if not {*wanted} & {*names}:
        if wanted is _TEXT and any(len(cell.split()) >= _SENTENCE for cell in heads[","]):
            return [{wanted[0]: _whole(line)} for line in text.splitlines()]
        raise EraseError(_no_column(path, wanted, heads[","]))
    reader = csv.DictReader(io.StringIO(text, newline=""), names, delimiter=mark, strict=True)
    try:
        rows = list(reader)[1:]
    except csv.Error as error:
        raise EraseError(f"{path} is no CSV ({error}); look at line {reader.line_num}.") from error
    rows = [_spaced(row) for row in rows]
    return [row for row in rows if (_first(row, wanted) or "").strip()]


def _spaced(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose bare names ("taylor_swift") read as in a prompt."""
    bare = row.get("concept")
    return row | {"concept": bare.replace("_", " ")} if bare else row


def _cells(line: str, mark: str) -> list[str]:
    """The cells of a table's line; none where it is no whole one."""
    try:
        return next(csv.reader([line], delimiter=mark, strict=True), [])
    except csv.Error:
        return []


def _whole(line: str) -> str:
    """A line that is a prompt, without the quotes around it."""
    cells = _cells(line, ",")
    return cells[0] if len(cells) == 1 else line


def _no_column(path: Path, wanted: tuple[str, ...], names: Sequence[str]) -> str:
    there = ", ".join(name for name in names if name.strip())[:200] or "none"
    asked = "prompt" if wanted is _TEXT else wanted[0]
    return (
        f"{path} has no column named {asked}, but {there}; name the one of the prompts with "
        "--column, or rename it."
    )


def _is_list(text: str) -> bool:
    """Whether a text, whatever it is called, is a JSON list."""
    try:
        return text.lstrip().startswith("[") and isinstance(parse_json(text), list)
    except ValueError:
        return False


def _from_json(path: Path, text: str, wanted: tuple[str, ...], lines: bool) -> list[dict[str, Any]]:
    """A row for each item of a list, or for each of ``lines``."""
    try:
        if lines:
            value = [parse_json(line) for line in text.splitlines() if line.strip()]
        else:
            value = parse_json(text)
    except ValueError as error:
        raise EraseError(f"Cannot read {path} as JSON ({error}); check the file.") from error
    items = value.get("annotations") if isinstance(value, dict) else value
    rows = [{wanted[0]: item} if isinstance(item, str) else _named(item) for item in _list(items)]
    if not all(isinstance(_first(row, wanted), str) for row in rows):
        raise EraseError(f"{path} is no list of prompts, or of objects with a prompt each.")
    return rows


def _named(item: Any) -> dict[str, Any]:
    """An object's fields, in any case; none of what is no object."""
    return {_name(name): value for name, value in item.items()} if isinstance(item, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """What a row has under the first of the names that it knows."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _seed(told: Any, otherwise: int) -> int:
    """A seed that a generator takes, else ``otherwise``."""
    text = str(told).strip()
    return int(text) if text.isdecimal() and len(text) < 20 and int(text) < 2**63 else otherwise
