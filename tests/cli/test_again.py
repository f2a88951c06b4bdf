"""``train --out FILE`` where FILE is what would be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli.test_cli import one_line, small, train

from erase_core.tensors import read_metadata

__all__ = ["small"]


def test_a_file_that_was_made_so_stays(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cat.safetensors"
    assert train(out, "--seed", "3") == 0
    made, written = out.read_bytes(), out.stat().st_mtime_ns
    capsys.readouterr()
    assert train(out, "--seed", "3", "--checkpoint-every", "1") == 0
    shown = capsys.readouterr()
    assert "was made so on" in shown.out and len(shown.out.splitlines()) == 1 and not shown.err
    assert train(out, "--seed", "3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lora"] == str(out) and told["stopped"] == "done" and told["made"]
    for other in (["--seed", "4"], ["--seed", "3", "--rank", "2"], ["--method", "uce"]):
        assert train(out, *other) == 1
        assert "exists already" in one_line(capsys)
    assert out.stat().st_mtime_ns == written
    assert train(out, "--seed", "3", "--overwrite") == 0
    assert out.read_bytes() == made and out.stat().st_mtime_ns > written


def test_a_file_tells_its_threads(small: None, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    assert train(tmp_path / "cat.safetensors", "--threads", "2") == 0
    assert read_metadata(tmp_path / "cat.safetensors")["erase.threads"] == "2"
    assert torch.get_num_threads() == before


def test_a_closed_form_is_known_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--method", "uce", "--set", "prompts=4"]
    assert train(tmp_path / "cat.safetensors", *told) == 0
    assert train(tmp_path / "cat.safetensors", *told) == 0
    assert "was made so on" in capsys.readouterr().out
