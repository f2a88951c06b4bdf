"""What a failure in mid-run says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from erase_core.commands import train as command
from erase_core.commands.output import sentence

from erase_core.cli import main
from erase_core.errors import EraseError


class Failing:
    """A trainer with history that runs out of memory."""

    notices: tuple[str, ...] = ()

    def run(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB.")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """``inspect`` runs a training that fails, whose work is kept."""
    monkeypatch.setattr("erase_core.training.rescue", lambda *_: Path("kept.safetensors"))
    bundle: Any = SimpleNamespace(name="", sha256="")

    def read(path: Path) -> None:
        command.run_and_save(Failing(), bundle, path)  # type: ignore[arg-type]

    monkeypatch.setattr("erase_core.tensors.read_tensors", read)


@pytest.mark.usefixtures("failing")
def test_out_of_memory_advises_and_names_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a.safetensors"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "try --memory" in line and "kept.safetensors" in line


@pytest.mark.usefixtures("failing")
def test_debugging_shows_where_a_run_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_DEBUG", "1")
    assert main(["inspect", "a.safetensors"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told and "in run" in told and "kept.safetensors" in told


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "too little memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "too little memory"),
        (PermissionError(13, "Permission denied", "a/b"), "Cannot use a/b (Permission denied)"),
        (EraseError("It is so."), "It is so."),
        (ZeroDivisionError("two\nlines"), "ZeroDivisionError: two lines (set ERASE_DEBUG=1"),
    ],
)
def test_sentences(error: Exception, says: str) -> None:
    assert says in sentence(error)
