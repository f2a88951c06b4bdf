"""Tasks shared out among processes of this machine, any of which may die at any moment.

Every process opens once what its tasks need, and does one task after another. A task whose process
died is begun again by another one. When the process that shares out dies, the others end at once.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple, Protocol

TRIES = 5  # of a task that gets no further before its process dies


class Shared(Protocol):
    """What all processes know, by name. It may forget at any moment."""

    def get(self, name: str) -> Any:
        """None where it is not known."""
        ...

    def put(self, name: str, value: Any, size: int) -> None:
        """``size`` in bytes."""
        ...


class Nothing:
    """Processes of one machine share nothing: what they find is found again in a moment."""

    def get(self, name: str) -> None:
        return None

    def put(self, name: str, value: Any, size: int) -> None:
        pass


class Job(Protocol):
    """What the processes do. It is sent to each of them by pickle."""

    def open(self, number: int, shared: Shared) -> Callable[[Any, Callable[[float], None]], Any]:
        """Called once in process ``number``: gives what does a task. That hears the task and a
        function that tells how far it is, by a number that grows, and returns its result. All
        processes keep in ``shared`` what one has found and another may want."""
        ...

    def explain(self, error: Exception) -> str:
        """What went wrong with a task, in a sentence for a person."""
        ...


class Event(NamedTuple):
    """What happened to the ``task``-th task.

    ``value`` is how far it is, the result, or the sentence of what failed. Of a "lost" task it says
    how its process ended; the task is begun again.
    """

    task: int
    kind: Literal["begun", "news", "done", "failed", "lost"]
    value: Any = None


def share(job: Job, tasks: Sequence[Any], processes: int = 1, threads: int = 1) -> Iterator[Event]:
    """Do ``tasks`` in so many processes of so many threads each; tells what happens as it does.

    Each task ends as "done" or "failed". When the iterator is closed, or an exception goes through
    it, all processes are killed.
    """
    row = Row(len(tasks))
    workers = [_Worker(job, number, threads) for number in range(min(processes, len(tasks)))]
    try:
        while True:
            for worker in workers:
                if worker.task is None and row.left:
                    yield worker.begin(row.left.popleft(), tasks)
            busy = [worker for worker in workers if worker.task is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                event = worker.hear()
                if event.kind == "lost":
                    workers[worker.number] = _Worker(job, worker.number, threads)
                yield row.heard(event)
    finally:
        for worker in workers:
            worker.kill()


class Row:
    """The tasks that nobody has begun, or must begin again, in their order."""

    def __init__(self, tasks: int) -> None:
        self.left = deque(range(tasks))
        self._deaths = Counter[int]()
        self._furthest, self._reached = dict[int, float](), dict[int, float]()

    def heard(self, event: Event) -> Event:
        """Put a lost task first in the row, unless it had its tries: it has failed then."""
        task = event.task
        if event.kind == "news":
            self._reached[task] = event.value
        if event.kind != "lost":
            return event
        here, before = (found.get(task, 0.0) for found in (self._reached, self._furthest))
        self._deaths[task] = deaths = 1 if here > before else self._deaths[task] + 1
        self._furthest[task] = max(here, before)
        if deaths < TRIES:
            self.left.appendleft(task)
            return event
        sentence = (
            f"Its process died {deaths} times in a row ({event.value}); is there enough memory?"
        )
        return Event(task, "failed", sentence)


class _Worker:
    """A process, and the task that it has."""

    def __init__(self, job: Job, number: int, threads: int) -> None:
        context = get_context("spawn")  # a fork would take locks of torch's threads along
        self.number = number
        self.task: int | None = None
        self.pipe, theirs = context.Pipe()
        arguments = (job, number, threads, theirs)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # so that its death can be heard

    def begin(self, index: int, tasks: Sequence[Any]) -> Event:
        self.task = index
        with suppress(OSError):  # it died before; hear() will tell
            self.pipe.send(tasks[index])
        return Event(index, "begun", self.number)

    def hear(self) -> Event:
        assert self.task is not None
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Event(self.task, "lost", f"exit code {self.process.exitcode}")
        event = Event(self.task, kind, value)
        if kind != "news":
            self.task = None
        return event

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(job: Job, number: int, threads: int, pipe: Connection) -> None:
    """The life of a process."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who shares out ends us
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    do: Callable[[Any, Callable[[float], None]], Any] | None = None
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            do = do or job.open(number, Nothing())
            told = ("done", do(task, lambda news: pipe.send(("news", news))))
        except Exception as error:
            told = ("failed", job.explain(error))
        pipe.send(told)


def end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
