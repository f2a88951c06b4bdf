"""Ctrl-C and its kin: they end a command, and never break off what it is writing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training.progress import Progress

    OnStep = Callable[[Progress], None]

# SIGHUP: the terminal was closed; SIGBREAK: Ctrl-Break, on Windows alone.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
TOLD = b"\neraseanything: stopping after this iteration; the work so far will be kept.\n"
STOPPING = b"\neraseanything: stopping after this iteration.\n"


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let every signal of NAMES raise KeyboardInterrupt, so that no temporary file stays."""
    with _handled(signal.default_int_handler):
        yield


class Stop:
    """Whether a signal has asked a run to end."""

    def __init__(self) -> None:
        self.asked = False

    def listening(self, on_step: OnStep) -> OnStep:
        """``on_step``, which ends the run after a step that is not its phase's last."""

        def told(progress: Progress) -> None:
            on_step(progress)
            if self.asked and progress.step < progress.steps:
                raise KeyboardInterrupt

        return told


@contextmanager
def stopping(also: Callable[[], None] = lambda: None, told: bytes = TOLD) -> Iterator[Stop]:
    """Let signals end a run after its current step, however many come, and do ``also``; the person
    is ``told``."""
    state = Stop()

    def stop(*_: Any) -> None:
        if not state.asked:
            with suppress(OSError):
                os.write(2, told)  # print is not safe in a signal handler
        state.asked = True
        also()

    with _handled(stop):
        yield state


@contextmanager
def _handled(handler: Callable[..., Any]) -> Iterator[None]:
    """Handle the signals of NAMES, but those that are ignored, as nohup does with SIGHUP."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
