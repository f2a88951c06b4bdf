"""Absurd numbers are one sentence, not an endless run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from erase_core.cli.main import main
from erase_core.errors import EraseError
from erase_core.training.result import BrokenError

DRAW = ["generate", "--prompt", "a", "--out", "a.png"]


@pytest.mark.parametrize(
    "argv",
    [
        [*DRAW, "--steps", "1000000000"],
        [*DRAW, "--steps", "0"],
        [*DRAW, "--seed", "-1"],
        [*DRAW, "--seed", str(2**64)],
        [*DRAW, "--guidance", "nan"],
        [*DRAW, "--size", "1000000000x16"],
        [*DRAW, "--size", "65536x65536"],
        [*DRAW, "--t5-length", "1000000000"],
        [*DRAW, "--t5-length", "0"],
        [*DRAW, "--memory", "nan"],
        ["demo", "--exam", "1000000000"],
        ["demo", "--seed", "9" * 5000],
        ["accept", "--draw-steps", "0"],
        ["bench", "--threads", "-1"],
        ["bench", "--seeds", "-1"],
        ["bench", "--exam", "1000000000"],
        ["concepts", "tiger", "-k", "1000000000"],
    ],
)
def test_flags_have_limits(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["steps", "batch", "rank", "k", "erase_rollouts", "keep_rollouts", "height", "width"],
)
def test_settings_have_limits(name: str) -> None:
    with pytest.raises(EraseError, match=f"The setting {name} must be a whole number from"):
        replace(tiny.SETTINGS, **{name: 16 * 10**9})


@pytest.mark.parametrize("name", ["lr_low", "eta", "l_esd", "tau", "alpha", "max_grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_have_limits(name: str, value: float) -> None:
    with pytest.raises(EraseError, match=f"The setting {name} must be a number from"):
        replace(tiny.SETTINGS, **{name: value})


def test_states_beyond_the_main_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would promise the memory, and end the process when it is wanted."""
    monkeypatch.setattr("erase_core.training.states.main_memory", lambda: 10_000)
    with pytest.raises(BrokenError, match="ask for fewer rollouts") as caught:
        tiny.run()
    assert isinstance(caught.value.cause, EraseError)


def test_a_run_of_a_thousand_million_rollouts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv: list[Any] = ["train", "--concept", "cat", "--out", str(tmp_path / "a.safetensors")]
    assert main([*argv, "--erase-rollouts", "1000000000"]) == 1
    assert "from 1 to 10,000" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["moon", "meta"])
def test_a_device_that_computes_nothing_is_refused(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "a.png")
    assert main(["generate", "--prompt", "a", "--out", out, "--device", device]) == 1
    assert f"no device {device}" in capsys.readouterr().err


def test_no_value_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as left:
        main(["generate", "--prompt=--", "--out", "a.png"])
    assert left.value.code == 2
