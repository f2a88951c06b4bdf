"""A job for tests of processes: its tasks say what becomes of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEATHS = 14  # askings of a task that gets further each time: it dies at every other


@dataclass(frozen=True)
class Toy:
    """``folder`` remembers which tasks died once."""

    folder: Path

    def open(self, number: int, shared: Any) -> Callable[[Any, Callable[[float], None]], Any]:
        (self.folder / f"opened {os.getpid()}").touch()
        return self.do

    def explain(self, error: Exception) -> str:
        return f"It failed: {error}"

    def do(self, task: Any, tell: Callable[[float], None]) -> Any:
        what, value = task
        tell(self._before(value) if what == "get further" else 1.0)
        if what == "fail":
            raise ValueError(value)
        if what == "sleep":
            time.sleep(value)
        dies = {
            "die": lambda: True,
            "die once": lambda: self._before(value) == 1,
            "get further": lambda: self._before(value) < DEATHS,
        }
        if what in dies and dies[what]():
            os.kill(os.getpid(), signal.SIGKILL)
        return value * 2

    def _before(self, value: Any) -> int:
        """How often this was asked about a task."""
        marks = len(list(self.folder.glob(f"asked {value} *")))
        (self.folder / f"asked {value} {marks}").touch()
        return marks + 1
