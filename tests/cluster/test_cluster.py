"""Two machines of a Ray cluster, one of which is killed: every task ends once, with the same bytes.

The machines are processes of this one, on the loopback address (`make cluster`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.machines import ENVIRONMENT, Machines, kill, machines
from toy_job import Toy

from erase_core.cluster import share
from erase_core.errors import EraseError
from erase_core.processes import TRIES, Event

pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

THINGS = [
    "tiger", "car", "bicycle", "chicken", "tractor", "panda",
    "dog", "rose", "helicopter", "pizza", "robot", "house",
]  # fmt: skip
SHORT = ["steps=6", "batch=2", "rollout_steps=2", "erase_rollouts=2", "keep_rollouts=2"]
SHORT += ["checkpoint_every=2", "l_adv=0"]
CORES = len(os.sched_getaffinity(0))  # processes of one thread each, as on the cluster
MADE = ("seconds", "threads", "peak_bytes")  # of the machine, not of the eraser


@pytest.fixture(scope="module")
def two() -> Iterator[Machines]:
    with machines() as cluster:
        cluster.join()
        yield cluster


def begin(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "erase_core", *map(str, words), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
    )


def test_every_task_ends_once_whatever_its_process_does(two: Machines, tmp_path: Path) -> None:
    tasks = [("double", 1), ("die once", 2), ("fail", 3), ("die once", 4), ("double", 5)]
    events = list(share(Toy(tmp_path), tasks, two.address))
    assert {e.task: e.value for e in events if e.kind == "done"} == {0: 2, 1: 4, 3: 8, 4: 10}
    assert [e for e in events if e.kind == "failed"] == [Event(2, "failed", "It failed: 3")]
    assert {e.task for e in events if e.kind == "lost"} == {1, 3}
    assert Counter(e.kind for e in events)["begun"] == len(tasks) + 2
    assert len(list(tmp_path.glob("opened *"))) <= 2 + 2  # once a process, not once a task


def test_a_task_that_kills_every_process_fails_alone(two: Machines, tmp_path: Path) -> None:
    events = list(share(Toy(tmp_path), [("die", 1), ("double", 2)], two.address))
    ends = {e.task: e for e in events if e.kind in ("done", "failed")}
    assert ends[1].value == 4 and f"died {TRIES} times in a row" in ends[0].value


def test_what_no_machine_has_room_for_is_refused(two: Machines, tmp_path: Path) -> None:
    with pytest.raises(EraseError, match="has room for a task"):
        next(share(Toy(tmp_path), [("double", 1)], two.address, threads=64))
    with pytest.raises(EraseError, match="There is no Ray cluster at 127.0.0.1:1"):
        next(share(Toy(tmp_path), [("double", 1)], "127.0.0.1:1"))


def test_cards_are_shared_by_memory() -> None:
    with machines(cpus=8, gpus=2) as cluster:
        from erase_core.cluster import Cluster, Need

        with Cluster(cluster.address) as found:
            assert found.places(Need(1, 0.4)) == 4 and found.places(Need(1, 1.0)) == 2
            assert found.places(Need(4, 0.4)) == 2 and found.places(Need(1)) == 8


def test_twelve_erasers_outlive_a_machine(tmp_path: Path) -> None:
    """Byte for byte what one process here makes, and nothing of Ray is left running."""
    names = tmp_path / "names.txt"
    names.write_text("\n".join(THINGS))
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    told = ["--exam", "0", "--set", *SHORT]
    here = begin("many", names, "--out", alone, "--workers", CORES, *told)
    assert here.communicate() and here.returncode == 0
    with machines() as cluster:
        other = cluster.join()
        running = begin("many", names, "--out", shared, "--ray", cluster.address, *told)
        events = list(_killing(running, other, lambda: len(list(shared.glob("*.safetensors"))) > 3))
        assert running.wait() == 0
    kinds = Counter(event["event"] for event in events)
    assert kinds["done"] == 12 and kinds["lost"] >= 1 and not events[-1]["failed"]
    for name in THINGS:
        file = f"{name}.safetensors"
        assert (shared / file).read_bytes() == (alone / file).read_bytes(), name
    assert not list(shared.glob("*.checkpoints"))


def test_twelve_cells_outlive_a_machine(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    told = ["bench", "--methods", "untouched", "uce", "--exam", "2", "--threads", "1"]
    told += ["--concepts", *THINGS[:6], "--out"]
    here = begin(*told, alone)
    assert here.communicate() and here.returncode == 0
    with machines() as cluster:
        other = cluster.join()
        running = begin(*told, shared, "--ray", cluster.address)
        list(_killing(running, other, lambda: len(list(shared.rglob("cells/**/*.json"))) > 2))
        assert running.wait() == 0
    rows = [_rows(folder) for folder in (alone, shared)]
    assert len(rows[0]) == 12 and rows[0] == rows[1]
    for file in alone.rglob("*.safetensors"):
        assert (shared / file.relative_to(alone)).read_bytes() == file.read_bytes()


def _killing(
    running: subprocess.Popen[str], machine: subprocess.Popen[bytes], when: Any
) -> Iterator[dict[str, Any]]:
    """Kill ``machine`` once ``when`` says so; gives what a command tells."""
    until = time.monotonic() + 400
    while not when():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    kill(machine)
    assert running.stdout is not None
    for line in running.stdout:
        yield json.loads(line)


def _rows(folder: Path) -> dict[str, Any]:
    found = {
        str(p.relative_to(folder)): json.loads(p.read_text()) for p in folder.rglob("* 0.json")
    }
    return {name: {k: row[k] for k in row if k not in MADE} for name, row in found.items()}
