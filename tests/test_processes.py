"""Work shared out among processes: whatever dies, every task ends once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from toy_job import Toy

from erase_core.processes import TRIES, Event, share

ROOT = Path(__file__).parents[1]


def test_every_task_ends_once_whatever_its_process_does(tmp_path: Path) -> None:
    tasks = [("double", 1), ("die once", 2), ("fail", 3), ("die once", 4), ("double", 5)]
    events = list(share(Toy(tmp_path), tasks, processes=2))
    assert {e.task: e.value for e in events if e.kind == "done"} == {0: 2, 1: 4, 3: 8, 4: 10}
    assert [e for e in events if e.kind == "failed"] == [Event(2, "failed", "It failed: 3")]
    lost = [e for e in events if e.kind == "lost"]
    assert {e.task for e in lost} == {1, 3} and {e.value for e in lost} == {"exit code -9"}
    assert Counter(e.kind for e in events)["begun"] == len(tasks) + 2
    assert Event(0, "news", 1.0) in events
    opened = len(list(tmp_path.glob("opened *")))
    assert opened <= 2 + 2  # once a process, not once a task


def test_a_task_that_kills_every_process_fails_alone(tmp_path: Path) -> None:
    events = list(share(Toy(tmp_path), [("die", 1), ("double", 2)], processes=1))
    ends = {e.task: e for e in events if e.kind in ("done", "failed")}
    assert ends[1].value == 4
    assert ends[0].kind == "failed"
    assert ends[0].value.startswith(f"Its process died {TRIES} times in a row (exit code -9)")


def test_a_task_that_gets_further_each_time_may_die_more_often(tmp_path: Path) -> None:
    events = list(share(Toy(tmp_path), [("get further", 1)], processes=1))
    assert events[-1] == Event(0, "done", 2)
    assert sum(event.kind == "lost" for event in events) > TRIES


def test_processes_end_with_the_iterator(tmp_path: Path) -> None:
    events = share(Toy(tmp_path), [("sleep", 60)] * 2, processes=2)
    while next(events).kind != "news":
        pass
    children = psutil.Process().children(recursive=True)
    events.close()
    assert not [c for c in children if "spawn_main" in " ".join(_line(c))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from toy_job import Toy\n"
        "from erase_core.processes import share\n"
        "if __name__ == '__main__':\n"
        f"    for event in share(Toy(Path({str(tmp_path)!r})), [('sleep', 600)]):\n"
        "        print(event.kind, flush=True)\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": ""}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline().strip() != "news":
            assert parent.poll() is None
        (child,) = (
            c for c in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(_line(c))
        )
        parent.send_signal(signal.SIGKILL)
        psutil.wait_procs([child], timeout=20)
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == "zombie"
