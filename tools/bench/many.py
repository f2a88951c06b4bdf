"""Twenty erasers at once against one after another, and with processes killed on the way.

    PYTHONPATH=. python tools/bench/many.py [--workers 2] [--kills 20] [--out out/many]

Prints seconds: of ``many`` in so many processes, of the same with processes killed at random
iterations, of ``train`` one after another at its own threads. Checks that kills change no byte.
Draws docs/many.png: which process made which eraser when. The trainings are short ones, so that
starting a process is a large part.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import psutil

from erase_core.cli.main import build_parser
from erase_core.cli.making import Erasers, Task
from erase_core.cli.sharing import plain
from erase_core.concepts.sets import ConceptSet
from erase_core.evaluate.report.plots import figure
from erase_core.evaluate.suites.suite import SEVERAL
from erase_core.miniatures.miniflux.concepts import concept
from erase_core.processes import share

PICTURE = Path(__file__).parents[2] / "docs" / "many.png"
SETTINGS = {"steps": 16, "erase_rollouts": 8, "keep_rollouts": 8, "checkpoint_every": 4}


class Span(NamedTuple):
    """A process's time with a task, in seconds from the start, and how it ended."""

    worker: int
    name: str
    began: float
    ended: float
    end: str


def one_by_one(folder: Path, *more: str) -> float:
    """Seconds of ``train`` for one concept after another."""
    began, told = perf_counter(), [f"{name}={value}" for name, value in SETTINGS.items()]
    for name in SEVERAL:
        argv = ["train", "--concept", name, "--out", str(folder / f"{name}.safetensors")]
        command = [sys.executable, "-m", "erase_core", *argv, "--set", *told, *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return perf_counter() - began


def side_by_side(folder: Path, workers: int, kills: int) -> Iterator[Span]:
    """``many``, with so many kills, each at a random iteration of whatever runs."""
    argv = ["many", "names.txt", "--device", "cpu", "--exam", "0", "--out", str(folder)]
    args = plain(build_parser().parse_args(argv))
    folder.mkdir(parents=True)
    tasks = [Task(name, ConceptSet((concept(name),))) for name in SEVERAL]
    rng, start = random.Random(0), perf_counter()
    begun: dict[int, tuple[int, float]] = {}
    until_kill = rng.randrange(1, 100)
    for event in share(Erasers(args, SETTINGS), tasks, workers):
        now = perf_counter() - start
        if event.kind == "begun":
            begun[event.task] = (event.value, now)
        elif event.kind == "failed":
            raise SystemExit(f"{tasks[event.task].name}: {event.value}")
        elif event.kind != "news":
            yield Span(
                begun[event.task][0], tasks[event.task].name, begun[event.task][1], now, event.kind
            )
        elif kills:
            until_kill -= 1
            if until_kill == 0:
                kill_one(rng)
                kills, until_kill = kills - 1, rng.randrange(1, 100)


def kill_one(rng: random.Random) -> None:
    children = psutil.Process().children()
    rng.choice([c for c in children if "spawn_main" in " ".join(c.cmdline())]).kill()


def draw(spans: list[Span], workers: int, path: Path) -> None:
    """A row for every process, a bar for every eraser; the bars of killed ones are hollow."""
    with figure(path) as (axes,):
        for span in spans:
            lost = span.end != "done"
            width = span.ended - span.began
            axes.barh(
                span.worker, width, left=span.began, height=0.7, edgecolor="black", linewidth=0.8,
                color="white" if lost else "tab:blue", hatch="////" if lost else "",
            )  # fmt: skip
            if not lost:
                middle = span.began + width / 2
                axes.text(
                    middle,
                    span.worker,
                    span.name,
                    ha="center",
                    va="center",
                    rotation=90,
                    fontsize=7,
                )
        axes.set_yticks(range(workers), [f"process {n + 1}" for n in range(workers)])
        axes.set_xlabel("seconds; hatched: its process was killed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/many"))
    args = parser.parse_args()
    began = perf_counter()
    quiet = list(side_by_side(args.out / "quiet", args.workers, 0))
    print(f"side by side: {perf_counter() - began:.0f} s", flush=True)
    began = perf_counter()
    killed = list(side_by_side(args.out / "killed", args.workers, args.kills))
    lost = sum(span.end == "lost" for span in killed)
    print(f"the same, {lost} processes killed: {perf_counter() - began:.0f} s", flush=True)
    draw(killed, args.workers, PICTURE)
    for spans in (quiet, killed):
        assert sorted(s.name for s in spans if s.end == "done") == sorted(SEVERAL)
    print(f"one after another: {one_by_one(args.out / 'default'):.0f} s", flush=True)
    for name in SEVERAL:
        files = [args.out / kind / f"{name}.safetensors" for kind in ("quiet", "killed")]
        assert len({file.read_bytes() for file in files}) == 1, name
    print("Killed or not, every eraser has the same bytes.")


if __name__ == "__main__":
    main()
