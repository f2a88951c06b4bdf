"""``train --extend``: an eraser's list grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.test_cli import one_line, small

from erase_core.cli.main import main
from erase_core.tensors import read_metadata

__all__ = ["small"]


def train(out: Path, name: str, *more: str) -> int:
    return main(["train", "--concept", name, "--out", str(out), *more])


def test_a_list_grows_file_by_file(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert train(one, "cat") == 0
    extend = ("--extend", str(one))
    assert train(two, "dog", *extend) == 0
    names = [c["name"] for c in json.loads(read_metadata(two)["erase.concepts"])["concepts"]]
    assert names == ["cat", "dog"]
    made = two.read_bytes()
    assert train(two, "dog", *extend) == 0
    assert "was made so on" in capsys.readouterr().out and two.read_bytes() == made
    assert train(two, "dog", *extend, "--overwrite") == 0
    assert two.read_bytes() == made
    capsys.readouterr()

    out = tmp_path / "three.safetensors"
    for name, more, why in (
        ("cat", ("--extend", str(two)), 'two.safetensors erases "cat" already'),
        ("rose", (*extend, "--rank", "2"), "has rank 8; set rank to 8 or more"),
        ("rose", (*extend, "--targets", "add_q_proj"), "changes other layers"),
        ("rose", (*extend, "--method", "uce"), "was made by eraseanything"),
        ("rose", ("--extend", str(tmp_path / "none.safetensors")), "There is no"),
    ):
        assert train(out, name, *more) == 1
        assert why in one_line(capsys)
    assert main(["train", "--resume", str(tmp_path), *extend, "--out", str(out)]) == 1
    assert "leave --extend out" in one_line(capsys)
    assert not out.exists()


def test_an_instant_eraser_is_no_start(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instant, out = tmp_path / "instant.safetensors", tmp_path / "out.safetensors"
    assert train(instant, "cat", "--method", "uce", "--set", "prompts=4") == 0
    capsys.readouterr()
    assert train(out, "dog", "--extend", str(instant)) == 1
    assert "was made by uce; eraseanything extends only erasers of its own" in one_line(capsys)
