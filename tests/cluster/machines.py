"""Machines of a Ray cluster as processes of this one, on the loopback address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from host.client import free_port

RAY = Path(sys.executable).with_name("ray")
ROOT = Path(__file__).parents[2]
MEMORY = str(100 * 2**20)  # of a machine's object store
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    "SOURCE_DATE_EPOCH": "1700000000",
}


class Machines:
    """The head at ``address``, and the machines that joined it."""

    def __init__(self, folder: Path, cpus: int = 1, **resources: int) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        self.running: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        self._start("--head", f"--port={port}", "--include-dashboard=false", cpus=cpus, **resources)

    def join(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Another machine; all of it is a process group."""
        return self._start(f"--address={self.address}", cpus=cpus)

    def end(self) -> None:
        """End what was started."""
        for machine in reversed(self.running):
            kill(machine)

    def _start(self, *more: str, cpus: int, **resources: int) -> subprocess.Popen[bytes]:
        told = [f"--num-{name}={count}" for name, count in resources.items()]
        own = ["--block", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", *told]
        own += [f"--object-store-memory={MEMORY}", "--disable-usage-stats"]
        own += [f"--temp-dir={self.folder}"] if "--head" in more else []
        log = self.folder / f"machine-{len(self.running)}.log"
        with log.open("wb") as output:
            machine = subprocess.Popen(
                [str(RAY), "start", *more, *own],
                env=os.environ | ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(machine)
        until = time.monotonic() + 180
        while b"--block" not in log.read_bytes():  # Ray says so once all runs
            assert machine.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        return machine


def kill(machine: subprocess.Popen[bytes]) -> None:
    """As if its power went."""
    for pid in sorted(_of(machine.pid), reverse=True):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    machine.wait()


def _of(session: int) -> list[int]:
    """The processes of a session: workers of Ray have process groups of their own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(entry.name))
    return found


@contextmanager
def machines(cpus: int = 1, **resources: int) -> Iterator[Machines]:
    """A cluster of one machine; others may join. Its folder has a short name: sockets want one."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        cluster = Machines(Path(folder), cpus, **resources)
        try:
            yield cluster
        finally:
            cluster.end()
