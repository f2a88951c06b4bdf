"""What a cluster's driver costs: many empty tasks, on resources that may be invented.

    ray start --head --num-cpus=64
    PYTHONPATH=. python tools/bench/overhead.py [--ray auto] [--tasks 10000] [--processes 8]

Prints milliseconds a task, and the memory of this process before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import Any

import psutil

from erase_core.cluster import share


class Empty:
    """A job whose tasks do nothing and tell once how far they are."""

    def open(self, number: int, shared: Any) -> Callable[[Any, Callable[[float], None]], Any]:
        def do(task: Any, tell: Callable[[float], None]) -> Any:
            tell(1.0)
            return {"file": f"{task}.safetensors", "seconds": 0.0}

        return do

    def explain(self, error: Exception) -> str:
        return str(error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", default="auto")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    args = parser.parse_args()
    process, began, held, done = psutil.Process(), 0.0, 0, 0
    for event in share(Empty(), range(args.tasks), args.ray, processes=args.processes):
        if event.kind == "done":
            done += 1
            if done == 1:  # Ray is imported and the processes run
                began, held = perf_counter(), process.memory_info().rss
    seconds, after = perf_counter() - began, process.memory_info().rss
    print(f"{done} tasks in {seconds:.0f} s: {1000 * seconds / done:.2f} ms each.")
    print(f"The driver had {held / 1e6:.0f} MB after the first, {after / 1e6:.0f} MB at the end.")


if __name__ == "__main__":
    main()
