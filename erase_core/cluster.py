"""Tasks shared out among the machines of a Ray cluster, any of which may go at any moment.

As :mod:`.processes` does it among processes, with Ray's actors in their place. Ray is an extra;
nothing of it is imported before :func:`share` is called. All machines have this package, and see
the folders that tasks name.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

from .errors import EraseError
from .processes import TRIES, Event, Job, Row

USED = 0.9  # of a card's memory; the rest is for the allocator's gaps
PATIENCE = 10  # seconds for a cluster to answer
ROOM = 0.5  # of the object store's memory, for what all processes share
TOLD = ("SOURCE_DATE_EPOCH", "ERASEANYTHING_CACHE")  # of the environment, to every process


class Need(NamedTuple):
    """What a task takes of a machine: CPU cores, each a thread, and cards or a share of one."""

    cpus: int = 1
    gpus: float = 0.0


def share(
    job: Job,
    tasks: Sequence[Any],
    address: str,
    threads: int = 1,
    processes: int = 0,
    memory_of: Callable[[Any], int] = lambda task: 0,
) -> Iterator[Event]:
    """Do ``tasks`` in so many processes (0: as many as find room) of so many ``threads`` in the
    cluster at ``address``; tells what happens as it does.

    "auto" is the cluster of this machine. Where the cluster has cards, each process has a share of
    one: as much as ``memory_of`` the first task, asked on a card, takes of its memory. Machines may
    come and go. When the iterator is closed, an exception goes through it or this process dies, all
    processes end.

    Raises
    ------
    EraseError
        When Ray is not installed, there is no such cluster, or it lacks room or this package.
    """
    if not tasks:
        return
    with Cluster(address) as cluster:
        need = Need(threads, cluster.card_for(lambda: memory_of(tasks[0])))
        pool = _Pool(cluster.ray, job, tasks, need)
        try:
            yield from pool.run(processes or cluster.places(need))
        finally:
            pool.end()


class Cluster:
    """A connection to a cluster, and what it has."""

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            told = '--ray needs Ray; run: pip install "eraseanything[cluster]".'
            raise EraseError(told) from None
        self.ray, self.address = ray, address

    def __enter__(self) -> Cluster:
        try:
            _knock(self.address)
            self.ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise EraseError(
                f"There is no Ray cluster at {self.address} ({str(error).splitlines()[0]}); start "
                "one with: ray start --head"
            ) from error
        # Ray would print what became of its processes on stdout, among a command's own lines; the
        # events tell it.
        self.ray._private.worker.print_to_stdstream = lambda *told, **more: None
        return self

    def __exit__(self, *why: object) -> None:
        self.ray.shutdown()

    def card_for(self, memory: Callable[[], int]) -> float:
        """The share of a card that so many bytes are; 0 in a cluster without cards."""
        if not self.ray.cluster_resources().get("GPU"):
            return 0.0
        return share_of(*self.ray.get(self.ray.remote(num_gpus=1)(_measure).remote(memory)))

    def places(self, need: Need) -> int:
        """How many tasks find room at once."""
        found = self.ray.cluster_resources()
        cores, cards = int(found.get("CPU", 0)), int(found.get("GPU", 0))
        # A card serves whole shares: of 0.4 of a card two go on each.
        each = int(1 / need.gpus) if 0 < need.gpus < 1 else 1
        count = min(cores // need.cpus, cards * each if need.gpus else cores)
        if not count:
            raise EraseError(
                f"No machine of the cluster has room for a task ({need.cpus} cores, "
                f"{need.gpus:g} cards); it has {cores} cores and {cards} cards."
            )
        return count


def _knock(address: str) -> None:
    """OSError where nobody answers, for which Ray would wait without end."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), PATIENCE).close()


def share_of(needed: float, total: float) -> float:
    """The share of a card of ``total`` bytes that has ``needed`` within USED of it, in hundredths;
    a whole card where nothing is known."""
    return min(1.0, math.ceil(100 * needed / (USED * total)) / 100) if needed else 1.0


def _measure(memory: Callable[[], int]) -> tuple[int, int]:
    import torch

    return memory(), torch.cuda.get_device_properties(0).total_memory


class _Pool:
    """The processes of a job, and what each of them does."""

    def __init__(self, ray: Any, job: Job, tasks: Sequence[Any], need: Need) -> None:
        self.ray, self.tasks = ray, tasks
        self.row = Row(len(tasks))
        store = ray.cluster_resources().get("object_store_memory", 0.0)
        self.shared = ray.remote(num_cpus=0)(Memory).remote(ROOM * store)
        told = {name: os.environ[name] for name in TOLD if name in os.environ}
        environment = {"env_vars": told | {"OMP_NUM_THREADS": str(need.cpus)}}
        kind = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, runtime_env=environment)(_Worker)
        job_ref = ray.put(job)
        self._new: Callable[[int], Any] = lambda number: kind.remote(
            job_ref, number, need.cpus, self.shared
        )
        self.starting: dict[Any, tuple[int, Any]] = {}  # what says that it runs -> a process
        self.idle: list[tuple[int, Any]] = []
        self.busy: dict[Any, tuple[int, Any, int]] = {}  # a stream of events -> process and task
        self.unable = 0  # processes in a row that could not start

    def run(self, processes: int) -> Iterator[Event]:
        """The events of all tasks."""
        for number in range(min(processes, len(self.tasks))):
            self._start(number)
        while self.row.left or self.busy:
            while self.idle and self.row.left:
                yield self._begin(*self.idle.pop(), self.row.left.popleft())
            ready, _ = self.ray.wait([*self.starting, *self.busy], num_returns=1)
            for found in ready:
                if found in self.starting:
                    self._started(found)
                else:
                    yield self.row.heard(self._hear(found))

    def end(self) -> None:
        """End all processes."""
        own = [*self.starting.values(), *self.idle, *self.busy.values()]
        for actor in [self.shared, *(entry[1] for entry in own)]:
            with suppress(Exception):  # the cluster is gone
                self.ray.kill(actor)

    def _start(self, number: int) -> None:
        """A process waits here for room, and has no task before it runs."""
        actor = self._new(number)
        self.starting[actor.ready.remote()] = (number, actor)

    def _started(self, found: Any) -> None:
        number, actor = self.starting.pop(found)
        try:
            self.ray.get(found)
        except self.ray.exceptions.RayError as error:
            self.unable += 1
            if self.unable == TRIES:
                told = str(error).strip().splitlines()[-1]
                raise EraseError(
                    f"The cluster starts no process ({told}); is this package on every machine?"
                ) from None
            self._start(number)
        else:
            self.unable = 0
            self.idle.append((number, actor))

    def _begin(self, number: int, actor: Any, task: int) -> Event:
        events = actor.do.options(num_returns="streaming").remote(self.tasks[task])
        self.busy[events] = (number, actor, task)
        return Event(task, "begun", number)

    def _hear(self, events: Any) -> Event:
        number, actor, task = self.busy[events]
        try:
            kind, value = self.ray.get(next(events))
        except self.ray.exceptions.RayError as error:
            del self.busy[events]
            self.ray.kill(actor)  # one that cannot be reached may be at work
            self._start(number)
            return Event(task, "lost", type(error).__name__)
        if kind != "news":
            del self.busy[events]
            self.idle.append((number, actor))
        return Event(task, kind, value)


class _Worker:
    """A process of the cluster; an actor."""

    def __init__(self, job: Job, number: int, threads: int, memory: Any) -> None:
        self.job, self.number, self.threads = job, number, threads
        self.shared = SharedByAll(memory)
        self.made: Callable[[Any, Callable[[float], None]], Any] | None = None

    def ready(self) -> None:
        """Returns once it runs."""

    def do(self, task: Any) -> Iterator[tuple[str, Any]]:
        """The events of a task, the last "done" or "failed"."""
        events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        threading.Thread(target=self._work, args=(task, events), daemon=True).start()
        while True:
            event = events.get()
            yield event
            if event[0] != "news":
                return

    def _work(self, task: Any, events: SimpleQueue[tuple[str, Any]]) -> None:
        import torch

        torch.set_num_threads(self.threads)
        try:
            self.made = self.made or self.job.open(self.number, self.shared)
            told = ("done", self.made(task, lambda news: events.put(("news", news))))
        except Exception as error:
            told = ("failed", self.job.explain(error))
        events.put(told)


class Memory:
    """What all processes share, the newest ``room`` bytes of it; an actor. The values themselves
    lie in the cluster's object store."""

    def __init__(self, room: float) -> None:
        self.room = room
        self.known: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, name: str) -> Any:
        """A reference in a list, which keeps Ray from fetching what it refers to."""
        return [self.known[name][0]] if name in self.known else None

    def put(self, name: str, reference: list[Any], size: int) -> None:
        self.known[name] = (reference[0], size)
        while sum(size for _, size in self.known.values()) > self.room:
            self.known.popitem(last=False)


class SharedByAll:
    """A process's side of :class:`Memory`; a :class:`.processes.Shared`. What the cluster has lost
    is not known."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def get(self, name: str) -> Any:
        import ray

        try:
            found = ray.get(self.memory.get.remote(name))
            return ray.get(found[0]) if found else None
        except ray.exceptions.RayError:
            return None

    def put(self, name: str, value: Any, size: int) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.get(self.memory.put.remote(name, [ray.put(value)], size))
