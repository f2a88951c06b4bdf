"""The tables of docs/instant.md are those of the published cells."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from erase_core.evaluate.suites.store import read_csv

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_cells() -> None:
    spec = importlib.util.spec_from_file_location("closed", ROOT / "tools" / "bench" / "closed.py")
    assert spec is not None and spec.loader is not None
    closed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(closed)
    rows = read_csv(closed.FILE)
    assert len(rows) > 40
    page = (ROOT / "docs" / "instant.md").read_text(encoding="utf-8")
    for line in closed.tables(rows).splitlines():
        assert not line or line in page.splitlines(), line
