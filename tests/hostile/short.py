"""The command line on MiniFlux, small enough for a run of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import erase_core.miniatures.miniflux as miniflux
from erase_core.cli.main import main
from erase_core.cli.progress import Bar
from erase_core.training.progress import Progress

SMALL = {
    "steps": 6, "batch": 1, "rollout_steps": 2, "erase_rollouts": 2, "keep_rollouts": 2, "k": 1,
    "height": 32, "width": 32,
}  # fmt: skip


def shrink(patched: pytest.MonkeyPatch) -> None:
    """MiniFlux in float32, which a CPU is faster at, and its settings for a small run."""
    balanced = miniflux.PRESETS["eraseanything"]["balanced"]["all"]
    small = dict.fromkeys(("balanced", "robust"), {"all": balanced | SMALL})
    load = miniflux.load
    patched.setattr(miniflux, "load", lambda *_: load(torch.float32))
    patched.setattr(miniflux, "PRESETS", {"eraseanything": small})


def train(out: Path, *more: str) -> int:
    """The exit code of a run."""
    return main(["train", "--concept", "cat", "--out", str(out), *more])


def resume(folder: Path, out: Path, *more: str) -> int:
    """The exit code of a run that goes on."""
    return main(["train", "--resume", str(folder), "--out", str(out), *more])


def at_step(patched: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Call ``act`` after that iteration of ``train``."""

    class Acting(Bar):
        def __call__(self, progress: Progress) -> None:
            if progress.phase == "training" and progress.step == step:
                act()

    patched.setattr("erase_core.cli.train.Bar", Acting)


def cancel_at(patched: pytest.MonkeyPatch, step: int) -> None:
    """Cancel ``train`` after that iteration."""

    def cancel() -> None:
        raise KeyboardInterrupt

    at_step(patched, step, cancel)


def names(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing where there is none."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
