"""A benchmark in several processes measures what one process measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase_core.cli.main import main

MADE = ("seconds", "threads", "peak_bytes")  # of the machine, not of the eraser


def measure(out: Path, *more: str) -> dict[str, Any]:
    argv = ["bench", "--methods", "untouched", "uce", "--concepts", "dog", "--exam", "2"]
    assert main([*argv, "--threads", "1", "--out", str(out), *more]) == 0
    found = {str(p.relative_to(out)): json.loads(p.read_text()) for p in out.rglob("* 0*.json")}
    return {name: {k: row[k] for k in row if k not in MADE} for name, row in found.items()}


def test_cells_are_those_of_one_process(tmp_path: Path) -> None:
    alone, shared = measure(tmp_path / "one"), measure(tmp_path / "two", "--workers", "2")
    assert len(alone) == 2 and shared == alone
    files = [(tmp_path / name / "cells/uce/dog 0.safetensors") for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_part_that_fails_is_told_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["bench", "--methods", "uce", "--concepts", "dog", "dog+blue", "--exam", "2"]
    assert main([*argv, "--threads", "1", "--workers", "2", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "warning: uce dog and 1 more: Concepts of one kind" in told
    assert "1 parts of the benchmark failed" in told
    assert (tmp_path / "cells/uce/dog 0.json").exists()
