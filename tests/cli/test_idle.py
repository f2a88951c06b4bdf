"""Options that would do nothing say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.test_cli import one_line, small, train
from tiny import SETTINGS, TIGER, make_model, run

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.trainer import Trainer

__all__ = ["small"]


def test_files_of_a_model_that_brings_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = ["generate", "--prompt", "a cat", "--steps", "1", "--out", str(tmp_path / "cat.png")]
    assert main([*draw, "--clip-l", "clip.safetensors", "--t5-length", "64"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1 and "does not look at --clip-l and --t5-length" in warned[0]
    assert main([*draw, "--overwrite"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--sense", "--kind"])
def test_meanings_where_there_is_no_choice(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    value = "tiger.n.02" if option == "--sense" else "entity"
    assert train(tmp_path / "cat.safetensors", option, value) == 1
    assert f"MiniFlux has its own meanings of words; leave {option} out." in one_line(capsys)
    words = tmp_path / "words.json"
    ConceptSet((TIGER,)).save(words)
    told = [
        "train",
        "--concepts",
        str(words),
        option,
        value,
        "--out",
        str(tmp_path / "a.safetensors"),
    ]
    assert main(told) == 1
    assert f"words.json has its own meanings of words; leave {option} out." in one_line(capsys)


def test_an_anchor_that_replaces_nothing(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "cat.safetensors", "--anchor", "dog", "--null", "empty") == 1
    assert 'The anchor "dog" would replace nothing; set null to replace' in one_line(capsys)
    assert train(tmp_path / "cat.safetensors", "--anchor", "dog", "--null", "replace") == 0


def test_fewer_steps_than_are_done(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path, on_step=None)
    folder = tmp_path
    done = SETTINGS.steps
    with pytest.raises(EraseError, match=f"has done {done} iterations already"):
        Trainer.resume(folder, make_model(), steps=done - 1)
    assert Trainer.resume(folder, make_model(), steps=done).step == done
