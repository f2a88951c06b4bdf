"""Runs that are killed, interrupted and terminated at random moments, in processes of their own.

One parent has everything imported and forks a child a run, so that a run is seconds.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.short import SMALL, names, shrink
from safetensors import safe_open

import erase_core.miniatures.miniflux as miniflux
from erase_core.cli.main import main

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
ARGUMENTS = ["train", "--concept", "cat", "--checkpoint-every", "2"]
LITTER = re.compile(r"\.(unfinished|replaced)-.*|.*\.tmp.*|.*\.lock")


def start(argv: Sequence[str], log: Path) -> int:
    """A child that runs the command line with its output in ``log``; its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        code = main(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the command began to listen
        code = 130
    finally:
        os._exit(code)


def wait(child: int, seconds: float = 600) -> int:
    """The exit code of a child, negative for a signal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise TimeoutError(child)


def until(log: Path, text: str, child: int, seconds: float = 300) -> None:
    """Wait for ``text`` in the output of a child."""
    late = time.monotonic() + seconds
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < late, log.read_text(errors="replace")
        assert os.waitpid(child, os.WNOHANG) == (0, 0), log.read_text(errors="replace")
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Children inherit MiniFlux made small, and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        shrink(patched)
        bundle = miniflux.load()  # each child has its own copy
        patched.setattr(miniflux, "load", lambda *_: bundle)
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_keep_the_work_and_a_second_run_is_refused(tmp_path: Path, number: int) -> None:
    """The signal comes twice within 10 ms."""
    out, folder, log = tmp_path / "cat.safetensors", tmp_path / "cat.checkpoints", tmp_path / "log"
    log.touch()
    child = start([*ARGUMENTS, "--out", str(out), "--steps", "100000"], log)
    try:
        until(log, "training:", child)
        for more in (["--out", str(out)], ["--out", str(tmp_path / "b.safetensors")]):
            argv = [*ARGUMENTS, *more, "--checkpoints", str(folder)]
            assert wait(start(argv, tmp_path / "second")) == 1
        assert (tmp_path / "second").read_text().count("Another run is writing to") == 2
    finally:  # also when the above fails
        os.kill(child, number)
        time.sleep(0.005)
        os.kill(child, number)
        code = wait(child)
    assert code == 130
    (partial,) = tmp_path.glob("cat.partial-*.safetensors")
    steps = int(partial.name.split("-")[1].split(".")[0])
    assert names(folder)[-1] == f"step-{steps:06d}"
    assert f"Cancelled after {steps} iterations" in log.read_text()
    assert not [name for name in names(tmp_path) + names(folder) if LITTER.fullmatch(name)]


@pytest.mark.parametrize("moment", range(26))
def test_a_process_that_dies_in_a_checkpoint_leaves_one(tmp_path: Path, moment: int) -> None:
    """At each rename, each deletion: the old run, or the new one, or the new one's next."""
    from erase_core.training.checkpoint import Snapshot
    from erase_core.training.run_folder import load_checkpoint, save_checkpoint, tidy

    tensor = {"a": torch.ones(2)}
    old, new = (Snapshot(2, tensor, tensor, {}, {"run": name}) for name in ("old", "new"))
    further = Snapshot(4, tensor, tensor, {}, {"run": "old"})
    for snapshot in (old, further):
        save_checkpoint(tmp_path, snapshot, 2)
    child = os.fork()
    if not child:
        left = iter(range(moment))

        def dying(name: str, act: Any) -> Any:
            def call(*args: Any, **more: Any) -> Any:
                if next(left, None) is None:
                    os._exit(9)
                return act(*args, **more)

            return call

        for name in ("replace", "unlink", "rmdir"):
            setattr(os, name, dying(name, getattr(os, name)))
        superseded = [tmp_path / "step-000002", tmp_path / "step-000004"]
        save_checkpoint(tmp_path, new, 2, superseded)
        os._exit(0)
    wait(child)
    tidy(tmp_path)
    found = load_checkpoint(tmp_path)
    assert (found.snapshot.step, found.snapshot.run["run"]) in ((4, "old"), (2, "new"))
    assert not found.damaged and not [n for n in names(tmp_path) if LITTER.fullmatch(n)]


def over(child: int) -> bool:
    """Whether a child has ended; its exit code is still to be read."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Worksite:
    """A folder with the person's files in every place that a run writes to."""

    def __init__(self, folder: Path, whole: bytes) -> None:
        self.folder, self.whole = folder, whole
        self.out, self.checkpoints = folder / "cat.safetensors", folder / "cat.checkpoints"
        self.log = folder / "log.txt"
        self.seen = 0  # iterations that the bar had told when the signal was sent
        self.checkpoints.mkdir(parents=True)
        self.mine = [folder / "cat.txt", folder / "cat.partial.txt", self.checkpoints / "notes.txt"]
        for path in [*self.mine, self.log]:
            path.write_text("mine")

    def attempt(self, argv: Sequence[str], number: int, moment: float, second: float) -> int:
        """Start, send ``number`` at a moment in iterations, each of ``second``; the exit code."""
        child = start(argv, self.log)
        whole, part = divmod(moment, 1)
        while self.reached() < whole and not over(child):
            time.sleep(0.002)
        time.sleep(part * second)
        os.kill(child, number)
        self.seen = self.reached()
        return wait(child)

    def reached(self) -> int:
        """The last iteration that the bar has told."""
        told = re.findall(rf"training:.*\| (\d+)/{SMALL['steps']} \[", self.log.read_text())
        return int(told[-1]) if told else 0

    def check(self) -> None:
        """Nothing of the person's is lost, no file under a real name is half."""
        assert all(path.read_text() == "mine" for path in self.mine)
        for path in self.folder.rglob("*.safetensors"):
            if not any(LITTER.fullmatch(part) for part in path.relative_to(self.folder).parts):
                with safe_open(path, "pt") as file:
                    assert file.keys()
        if self.out.exists():
            assert self.out.read_bytes() == self.whole

    def finish(self) -> str:
        """Go on as a person would; how the run had to be taken up."""
        how = "was done"
        if not self.out.exists():
            found = [n for n in names(self.checkpoints) if n.startswith(("step-", ".replaced-"))]
            source = ["train", "--resume", str(self.checkpoints)] if found else ARGUMENTS
            how = "resumed" if found else "begun anew"
            child = start([*source, "--out", str(self.out)], self.log)
            assert wait(child) == 0, self.log.read_text(errors="replace")[-2000:]
        self.check()
        litter = [p for p in self.folder.rglob("*") if how != "was done" and LITTER.match(p.name)]
        assert not litter, litter
        return how


def moments(seed: int, count: int) -> list[float]:
    """From the start, by way of every iteration, to the writing of the file."""
    draw = random.Random(seed)
    return [draw.uniform(0, SMALL["steps"] + 0.5) for _ in range(count)]


@pytest.mark.slow
def test_kills_interrupts_and_terminations(tmp_path: Path) -> None:
    """30 SIGKILLs, 20 SIGINTs, 20 SIGTERMs at moments uniform over a run."""
    whole, log = tmp_path / "whole.safetensors", tmp_path / "log.txt"
    for _ in range(2):  # the second is as long as those that follow
        began = time.monotonic()
        assert wait(start([*ARGUMENTS, "--overwrite", "--out", str(whole)], log)) == 0
        seconds = time.monotonic() - began
    told: Counter[str] = Counter()
    for number, count in ((signal.SIGKILL, 30), (signal.SIGINT, 20), (signal.SIGTERM, 20)):
        for index, moment in enumerate(moments(number, count)):
            site = Worksite(tmp_path / f"{number}-{index}", whole.read_bytes())
            argv = [*ARGUMENTS, "--out", str(site.out)]
            code = site.attempt(argv, number, moment, seconds / (SMALL["steps"] + 3))
            allowed = (-number, 0) if number == signal.SIGKILL else (130, 0, -number)
            assert code in allowed, site.log.read_text(errors="replace")[-2000:]
            site.check()
            kept = sorted(site.folder.glob("cat.partial-*.safetensors"))
            how = site.finish()
            name = signal.Signals(number).name
            told[f"{name}: {how}, code {code}{', partial kept' if kept else ''}"] += 1
            # A signal within the last iteration lets the run end.
            if number != signal.SIGKILL and 1 <= site.seen < SMALL["steps"] - 1:
                assert kept and how == "resumed"
    print(f"\nundisturbed: {seconds:.1f} s")
    print("\n".join(f"{count:3} {what}" for what, count in sorted(told.items())))
    assert told.total() == 70
