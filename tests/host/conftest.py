"""A real ComfyUI for the tests: one live server, driven over HTTP and websocket.

It is looked for at COMFYUI_PATH, else ~/comfy/ComfyUI, with its Python at COMFYUI_PYTHON, else in
the host's own .venv, else ~/comfy/venv/bin/python. Nothing is written into it: all goes to a
temporary base directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host.client import Client, free_port

TOYS = Path(__file__).parent / "toys"
ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
OWN = HOST / ".venv" / "bin" / "python"
DEFAULT = str(OWN) if OWN.is_file() else "~/comfy/venv/bin/python"
PYTHON = Path(os.environ.get("COMFYUI_PYTHON", DEFAULT)).expanduser()
STARTING = 300  # seconds, on a machine that is busy with other things


THERE = (HOST / "main.py").is_file() and PYTHON.is_file()
LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests below this folder; without a host leave them out."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.host)
    if not THERE:
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)
        config.stash[LEFT_OUT] = len(ours)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells how many it left out: it alone has collected the tests."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker has left out the same ones."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One plain line about what was left out."""
    count = config.stash.get(LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            f"{count} host tests skipped: no ComfyUI at {HOST} with a Python at {PYTHON} "
            "(COMFYUI_PATH and COMFYUI_PYTHON name others)."
        )


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory for the host with our package in it and MiniFlux among the models."""
    folder = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "user", "input", "output", "temp", "models/loras"):
        (folder / name).mkdir(parents=True)
    (folder / "custom_nodes" / "eraseanything").symlink_to(ROOT)
    for place, name in (("diffusion_models", "transformer"), ("vae", "vae")):
        (folder / "models" / place).mkdir()
        source = ROOT / "erase_core" / "miniatures" / "miniflux" / f"{name}.safetensors"
        shutil.copy(source, folder / "models" / place / f"miniflux_{name}.safetensors")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The host's environment: quiet, on one core, no bytecode into its checkout, day pinned."""
    settings = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "eraseanything-host-bytecode"),
        "SOURCE_DATE_EPOCH": "1750000000",
        "PYTHONPATH": "",
    }
    return os.environ | settings


def command(base: Path, *more: str) -> list[str]:
    """The host's command line; its database stays in memory, else it goes into the checkout."""
    own = ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    return [str(PYTHON), "main.py", "--cpu", *own, *more]


def hears_ctrl_c() -> None:
    """A shell's background jobs ignore Ctrl-C, and so do their children unless they are told."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def running(base: Path, environment: dict[str, str], *more: str) -> Iterator[Client]:
    """A live server; its log is kept beside the base directory."""
    port = free_port()
    log = base / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(base, "--port", str(port), "--disable-auto-launch", *more),
            cwd=HOST,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=hears_ctrl_c,
        )
    client = Client(port, base, process.pid)
    try:
        until = time.monotonic() + STARTING
        while not client.answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"ComfyUI did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield client
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def server(base: Path, environment: dict[str, str]) -> Iterator[Client]:
    with running(base, environment) as client:
        yield client


@pytest.fixture(scope="module")
def toys(base: Path, environment: dict[str, str]) -> Iterator[Client]:
    """A server of its own, which has the toys too."""
    link = base / "custom_nodes" / "toys"
    link.symlink_to(TOYS)
    try:
        with running(base, environment) as client:
            yield client
    finally:
        link.unlink()


@pytest.fixture
def offered(request: pytest.FixtureRequest, toys: Client) -> None:
    """Leave out the families that an older host lacks."""
    family = getattr(request.node, "callspec", None) and request.node.callspec.params.get("family")
    known = toys.get("/object_info")["ToyModel"]["input"]["required"]["family"]
    names = known[0] if isinstance(known[0], list) else known[1]["options"]
    if family and family not in names:
        pytest.skip(f"this ComfyUI has no {family}")
