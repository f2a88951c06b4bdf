"""A progress bar on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ..training.progress import Progress

LABELS = {"text": "reading prompts", "rollouts": "base model draws", "training": "training"}
LABEL_WIDTH = 18
TENTHS = 10


class Bar:
    """One line that grows on a terminal, a line for every tenth elsewhere.

    An instance is the trainer's ``on_step``; :meth:`phase` is for all other work.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._label = ""
        self._tenth = -1

    def __call__(self, progress: Progress) -> None:
        """Show how far training is."""
        label = LABELS[progress.phase]
        self.show(label, progress.step, progress.steps, progress.seconds_left, progress.losses)

    def phase(self, label: str, total: int) -> Callable[[int], None]:
        """A function to be called with the number of things done so far, of ``total``."""
        began = time.monotonic()

        def done(count: int) -> None:
            left = (time.monotonic() - began) / count * (total - count)
            self.show(label, count, total, left)

        return done

    def show(
        self,
        label: str,
        done: int,
        total: int,
        seconds_left: float,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        """Redraw the line, ending it when all is done."""
        if label != self._label:
            self.close()
            self._label = label
        text = describe(label, done, total, seconds_left, losses or {})
        tenth = TENTHS * done // total
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + text[:width].ljust(width))
        elif tenth > self._tenth:
            self._stream.write(text + "\n")
        self._tenth = tenth
        self._stream.flush()
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the line, if one is open."""
        if self._live and self._label:
            self._stream.write("\n")
        self._label, self._tenth = "", -1


def describe(
    label: str, done: int, total: int, seconds_left: float, losses: Mapping[str, float]
) -> str:
    """One line: what, a bar, how much, how long still, the losses."""
    filled = 20 * done // total
    bar = "#" * filled + "-" * (20 - filled)
    values = "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
    left = clock(seconds_left) + " left" if done < total else "done"
    return f"{label:<{LABEL_WIDTH}}[{bar}] {done}/{total}  {left}  {values}".rstrip()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
