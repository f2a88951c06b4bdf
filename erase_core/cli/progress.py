"""A progress bar on standard error, by tqdm."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from .output import Unfailing, printable

if TYPE_CHECKING:
    from ..training.progress import Losses, Progress

LABELS = {"text": "reading prompts", "rollouts": "base model draws", "training": "training"}
LINES = 10  # of a phase in a log, beside the first


class Bar:
    """A bar that moves on a terminal, a line for every tenth elsewhere.

    An instance is the trainer's ``on_step``; :meth:`phase` is for all other work. A stream that
    takes nothing, or is closed, ends nothing: the work goes on unseen.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        lines = Unfailing(stream or sys.stderr)
        self._live = lines.isatty()
        self._stream = lines if self._live else _Log(lines)
        self._bar: Any = None
        self._label = ""

    def __call__(self, progress: Progress) -> None:
        """Show how far training is."""
        self._show(LABELS[progress.phase], progress.step, progress.steps, progress.losses)

    def phase(self, label: str, total: int) -> Callable[[int], None]:
        """A function to be called with the number of things done so far, of ``total``."""
        self._open(label, total, 0)
        return lambda done: self._show(label, done, total)

    def close(self) -> None:
        """End the line, if one is open."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _open(self, label: str, total: int, done: int) -> None:
        from tqdm import tqdm

        self.close()
        self._label = label
        self._bar = tqdm(
            desc=printable(label),
            total=total,
            initial=done,
            file=self._stream,
            dynamic_ncols=self._live,
            smoothing=0,  # the time left is told from the whole phase
            miniters=1 if self._live else -(-total // LINES),
            mininterval=0.1 if self._live else 0,
            maxinterval=math.inf,
            position=0,
        )

    def _show(self, label: str, done: int, total: int, losses: Losses | None = None) -> None:
        if self._bar is None or label != self._label:
            self._open(label, total, done)
        if losses:
            self._bar.set_postfix(losses, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()


class _Log:
    """A file for tqdm that keeps every state of the line once, each as a line of its own."""

    def __init__(self, stream: Unfailing) -> None:
        self._stream, self._last = stream, ""
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        line = text.strip()
        done = line.rpartition("[")[0]  # without seconds
        if done and done != self._last:
            self._stream.write(line + "\n")
            self._last = done

    def flush(self) -> None:
        self._stream.flush()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
