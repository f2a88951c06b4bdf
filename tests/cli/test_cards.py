"""``train --cards 2``: two processes of this CPU train one eraser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cli.test_cli import one_line

from erase_core.cli.main import main
from erase_core.tensors import read_tensors

SHORT = ["steps=4", "batch=2", "rollout_steps=2", "erase_rollouts=4", "keep_rollouts=4", "l_adv=0"]


def train(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    argv = ["train", "--concept", "tiger", "--out", str(out), "--set", *SHORT, "--json", *more]
    return subprocess.run(
        [sys.executable, "-m", "erase_core", *argv],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_two_processes_train_one_eraser(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.safetensors" for n in ("one", "two")]
    for file, cards in zip(files, ("1", "2"), strict=True):
        done = train(file, "--cards", cards, "--threads", "1")
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["stopped"] == "done"
    (one, about), (two, other) = map(read_tensors, files)
    assert about["erase.settings"] == other["erase.settings"]
    assert one.keys() == two.keys()
    # MiniFlux computes in bfloat16, and Adam divides by the gradient's size: where that is rounding
    # alone a weight goes anywhere. tests/training/test_team.py compares weights, in float32.
    curves = [json.loads(told["erase.history"]) for told in (about, other)]
    for name in ("esd", "attn"):
        assert curves[1][name] == pytest.approx(curves[0][name], rel=0.02)
    assert sorted(tmp_path.iterdir()) == sorted(files)  # no other process wrote anything
    assert not [p for p in psutil.Process().children(recursive=True) if "spawn_main" in str(p)]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--set", "batch=3", "l_adv=0"], "cannot be shared out among 2 cards"),
        (["--set", "l_adv=1"], "set l_adv to 0, or cards to 1"),
        (["--method", "uce"], "UCE knows no --cards"),
    ],
)
def test_what_two_cannot_share_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    argv = ["train", "--concept", "tiger", "--out", str(tmp_path / "no.safetensors")]
    assert main([*argv, "--cards", "2", *more]) == 1
    assert why in one_line(capsys)
    assert not list(tmp_path.glob("*.safetensors"))
