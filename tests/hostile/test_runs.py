"""A run and the folder of its checkpoints: whatever comes, no work and no file is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hostile.short import at_step, cancel_at, names, resume, shrink, train
from tiny import SETTINGS, make_model, make_trainer, run, same, stop_at

from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.training.result import BrokenError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cat.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cat.checkpoints"


def unfinished(out: Path, step: int, *more: str) -> None:
    """A run that was cancelled after ``step``."""
    with pytest.MonkeyPatch.context() as patched:
        cancel_at(patched, step)
        assert train(out, *more) == 130


def test_notes_in_the_folder_of_checkpoints_stay(out: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "my-notes.txt").write_text("mine")
    (folder / "step-by-step").mkdir()
    assert train(out, "--checkpoint-every", "2") == 0
    assert names(folder) == ["my-notes.txt", "step-by-step"]


def test_notes_in_a_checkpoint_stay(out: Path, folder: Path) -> None:
    unfinished(out, 2)
    (folder / "step-000002" / "my-notes.txt").write_text("mine")
    assert train(out, "--overwrite", "--checkpoint-every", "2") == 0
    assert [path.read_text() for path in folder.rglob("my-notes.txt")] == ["mine"]
    assert names(folder)[0].startswith("step-000002") and len(names(folder)) == 1


def test_nothing_goes_before_all_is_validated(
    out: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(out, 2, "--checkpoint-every", "1")
    before = names(folder)
    for bad in (["--concept", "unicorn"], ["--concept", "cat", "--targets", "nonsense"]):
        assert train(out, "--overwrite", *bad) == 1
    assert names(folder) == before and "step-000002" in before


def test_the_old_run_stays_until_the_new_one_has_a_checkpoint(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(out, 2)
    seen: list[list[str]] = []
    at_step(monkeypatch, 3, lambda: seen.append(names(folder)))
    assert train(out, "--overwrite", "--checkpoint-every", "4") == 0
    at_step(monkeypatch, 5, lambda: seen.append(names(folder)))
    unfinished(out, 2, "--overwrite")
    assert train(out, "--overwrite", "--checkpoint-every", "4") == 0
    steps = [[name for name in found if name.startswith("step-")] for found in seen]
    assert steps == [["step-000002"], ["step-000004"]]


def test_a_cancel_right_after_the_start_keeps_the_run_that_got_further(
    out: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(out, 4)
    unfinished(out, 2, "--overwrite")
    assert names(folder) == ["step-000004"]
    assert "got further and stays" in capsys.readouterr().err
    unfinished(out, 5, "--overwrite")
    assert names(folder) == ["step-000005"]


def test_a_run_goes_on_where_it_was_cancelled(
    out: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(out, 3)
    assert names(folder) == ["step-000003"]
    assert f"--resume {folder} goes on" in capsys.readouterr().out
    assert resume(folder, out) == 0
    assert train(tmp_path / "whole.safetensors") == 0
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("options", [{}, {"refresh_every": 2}, {"l_adv": 1.0}])
def test_a_run_goes_on_where_an_iteration_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, float]
) -> None:
    """In the midst of the fifth iteration, after its erasing half-step."""
    from dataclasses import replace

    settings = replace(SETTINGS, checkpoint_every=100, **options)
    trainer, halves = make_trainer(settings, checkpoint_dir=tmp_path), iter(range(100))
    descend = trainer._descend

    def fail(*args: object) -> object:
        if next(halves) == 9:
            raise RuntimeError("out of memory")
        return descend(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_descend", fail)
    with pytest.raises(BrokenError, match="out of memory"):
        trainer.run()
    assert same(trainer.lora.state(), run(replace(settings, steps=4)).eraser.state())
    resumed = Trainer.resume(tmp_path, make_model())
    assert resumed.step == 4
    result, whole = resumed.run(), run(settings)
    assert same(result.eraser.state(), whole.eraser.state()) and result.history == whole.history


def test_without_intervals_there_are_no_checkpoints(tmp_path: Path) -> None:
    from dataclasses import replace

    stop = stop_at(2, KeyboardInterrupt)
    run(replace(SETTINGS, checkpoint_every=0), checkpoint_dir=tmp_path, on_step=stop)
    assert names(tmp_path) == []


def truncate(checkpoint: Path) -> None:
    path = checkpoint / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def garble(checkpoint: Path) -> None:
    (checkpoint / "run.json").write_bytes(b"\0" * 100)


def lose(checkpoint: Path) -> None:
    (checkpoint / "run.json").unlink()


def empty(checkpoint: Path) -> None:
    (checkpoint / "erase.safetensors").write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, garble, lose, empty])
def test_a_damaged_checkpoint_leaves_the_older_one(
    out: Path, folder: Path, damage: object, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(out, 5, "--checkpoint-every", "2")
    assert names(folder) == ["step-000004", "step-000005"]
    damage(folder / "step-000005")  # type: ignore[operator]
    capsys.readouterr()
    assert resume(folder, out) == 0
    told = capsys.readouterr().err
    assert "step-000005 is damaged; the run goes on from step-000004" in told
    assert names(folder) == ["step-000004", "step-000006"]
    other = out.with_name("other.safetensors")
    assert resume(folder / "step-000004", other, "--overwrite") == 0
    assert out.read_bytes() == other.read_bytes()


def test_a_folder_of_damaged_checkpoints_is_one_sentence(
    out: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished(out, 2)
    truncate(folder / "step-000002")
    assert resume(folder, out) == 1
    assert "No checkpoint in" in capsys.readouterr().err
    assert resume(folder / "step-000002", out) == 1
    assert "is damaged" in capsys.readouterr().err


def test_remains_of_a_killed_run_go(out: Path, folder: Path) -> None:
    remains = folder / ".unfinished-0123abcd"
    remains.mkdir(parents=True)
    (remains / "lora.safetensors").write_bytes(b"half")
    (folder / ".unfinished-symphony").mkdir()  # not ours
    unfinished(out, 2)
    assert names(folder) == [".unfinished-symphony", "step-000002"]


def test_a_place_for_checkpoints_that_cannot_be_written_is_noticed_at_once(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train(out, "--checkpoints", str(tmp_path / "file" / "inside")) == 1
    captured = capsys.readouterr()
    assert "Cannot write" in captured.err and "Training takes" not in captured.out
    assert names(tmp_path) == ["file"]


def test_ctrl_c_in_the_last_write_loses_nothing(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    def interrupted(tensors: object, path: Path, **more: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save_file(tensors, path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("erase_core.tensors.save_file", interrupted)
    assert train(out) in (0, 130)
    assert out.is_file()


def test_a_file_that_appears_meanwhile_is_not_replaced(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(monkeypatch, 3, lambda: out.write_text("mine") and None)
    assert train(out) == 1
    assert out.read_text() == "mine"
    assert "cat-2.safetensors" in capsys.readouterr().err
    assert (out.parent / "cat-2.safetensors").stat().st_size > 1000


def test_a_file_that_cannot_be_written_at_the_end_leaves_a_checkpoint(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 6, out.mkdir)
    assert train(out) == 1
    assert names(folder) == ["step-000006"]
    monkeypatch.undo()
    shrink(monkeypatch)
    assert resume(folder, out.with_name("rescued.safetensors")) == 0
