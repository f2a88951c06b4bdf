"""What a failure in mid-run says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hostile.short import shrink, train

from erase_core.cli.output import sentence
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.training.progress import Losses


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run that runs out of memory in its third iteration."""
    shrink(monkeypatch)
    iterate = Trainer._iterate

    def fail(trainer: Trainer, *args: object) -> Losses:
        if trainer.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB.")
        return iterate(trainer, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_iterate", fail)


@pytest.mark.usefixtures("failing")
def test_out_of_memory_advises_and_names_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "cat.safetensors") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    partial = tmp_path / "cat.partial-2.safetensors"
    assert "try --memory" in line and str(partial) in line and partial.is_file()


@pytest.mark.usefixtures("failing")
def test_debugging_shows_where_a_run_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_DEBUG", "1")
    assert train(tmp_path / "cat.safetensors") == 1
    told = capsys.readouterr().err
    assert "Traceback" in told and "in run" in told and "in fail" in told
    assert "cat.partial-2.safetensors" in told


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
