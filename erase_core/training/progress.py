"""How far a run is, in words for a progress bar."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Phase = Literal["text", "rollouts", "training"]
Losses = dict[str, float]
NewBar = Callable[[str, int], Callable[[int], None]]  # of a label and a total; then of what is done


@dataclass(frozen=True)
class Progress:
    """``step`` of ``steps`` in ``phase`` is done.

    ``losses`` are those of the last iteration, unweighted, as far as they are computed: "esd",
    "attn", "lora", "rsc", "adv". ``seconds_left`` counts to the end of the phase.
    """

    phase: Phase
    step: int
    steps: int
    losses: Losses
    seconds_left: float


class Reporter:
    """Tells ``on_step`` of every step and adds up the seconds of each phase.

    With ``stopping`` set, the next step that is not a phase's last raises KeyboardInterrupt.
    """

    def __init__(self, on_step: Callable[[Progress], None] | None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stopping = False
        self._on_step = on_step or (lambda progress: None)

    @contextmanager
    def phase(self, phase: Phase, steps: int, first: int = 0) -> Iterator[Callable[..., None]]:
        """Yield ``tick(losses=None)``, to be called after each of ``steps - first`` steps."""
        started = time.monotonic()
        done = 0

        def tick(losses: Losses | None = None) -> None:
            nonlocal done
            done += 1
            left = (time.monotonic() - started) / done * (steps - first - done)
            self._on_step(Progress(phase, first + done, steps, losses or {}, left))
            if self.stopping and first + done < steps:
                raise KeyboardInterrupt

        try:
            yield tick
        finally:
            self.seconds[phase] += time.monotonic() - started
