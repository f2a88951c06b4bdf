"""A job for tests of processes: its tasks say what becomes of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Toy:
    """``folder`` remembers which tasks died once."""

    folder: Path

    def open(self, number: int) -> Callable[[Any, Callable[[Any], None]], Any]:
        (self.folder / f"opened {os.getpid()}").touch()
        return self.do

    def explain(self, error: Exception) -> str:
        return f"It failed: {error}"

    def do(self, task: Any, tell: Callable[[Any], None]) -> Any:
        what, value = task
        tell(f"{what} {value}")
        if what == "fail":
            raise ValueError(value)
        if what == "sleep":
            time.sleep(value)
        if what == "die" or (what == "die once" and not self._died(value)):
            os.kill(os.getpid(), signal.SIGKILL)
        return value * 2

    def _died(self, value: Any) -> bool:
        mark = self.folder / f"died {value}"
        there = mark.exists()
        mark.touch()
        return there
