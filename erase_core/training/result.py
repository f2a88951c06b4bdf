"""What a run of any method leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..erasers.base import Eraser
from ..erasers.guards.base import Guard
from .progress import Losses

Stopped = Literal["done", "cancelled", "diverged"]


@dataclass(frozen=True)
class Result:
    """The ``eraser`` (None: the model stays as it is) and how it came about.

    ``method`` is its name, and ``settings`` are its own, as plain JSON values. ``history`` has the
    unweighted losses of every iteration; ``seconds`` counts per phase; ``stopped`` says why the run
    ended; ``measured`` holds numbers that tell how good the eraser's file is. ``pictures`` counts
    the person's own that stood for what must stay. ``extends`` is the hash of an earlier eraser
    that it started from. A row of guards has a ``guard`` instead of an
    eraser.
    """

    eraser: Eraser | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Losses] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    stopped: Stopped = "done"
    method: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    guard: Guard | None = None
    pictures: int = 0
    extends: str = ""

    def diverged(self, file: object) -> str:
        """How such a run ended, for the person; its last good weights are in ``file``."""
        return (
            f"The losses diverged after {len(self.history)} iterations; the last good weights are "
            f"in {file}. Try a lower lr_low."
        )


class BrokenError(Exception):
    """A run that ``cause`` broke off, and what it has so far."""

    def __init__(self, cause: BaseException, result: Result) -> None:
        super().__init__(str(cause))
        self.cause, self.result = cause, result
