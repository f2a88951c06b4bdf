"""What a measurement was taken on: versions, device, memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from . import __version__
from .errors import EraseError

SPARE = 0.3  # of a core; what a desktop does beside is no reason to leave it
PACKAGES = ("torch", "safetensors", "peft", "transformers", "tokenizers", "numpy", "diffusers")


def versions() -> dict[str, str]:
    """Versions of all that computes; packages that are not installed are left out."""
    found = {"eraseanything": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(device: torch.device) -> dict[str, Any]:
    """The device that computes and the machine around it (JSON-ready)."""
    about: dict[str, Any] = {
        "device": str(device),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "name": properties.name,
            "cuda": torch.version.cuda or torch.version.hip,
            "memory_bytes": properties.total_memory,
            "free_bytes": torch.cuda.mem_get_info(device)[0],
        }
    return about


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, unless a CPU has no instructions that multiply it: then float32, which is up to
    sixty times faster there."""
    slow = (
        platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_avx512_supported()
    )
    return torch.float32 if device.type == "cpu" and slow else torch.bfloat16


@contextmanager
def using_threads(device: torch.device, count: int = 0) -> Iterator[None]:
    """Within it a CPU computes with so many threads. 0: torch's own number, but no more than there
    are idle cores now, unless OMP_NUM_THREADS decides.

    A thread that shares its core with a busy process holds all others up at every product: a small
    model then trains several times slower than with fewer threads.
    """
    before = torch.get_num_threads()
    told = count or os.environ.get("OMP_NUM_THREADS")
    if not told and device.type == "cpu" and before > 1:
        count = min(before, idle_cores())
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def idle_cores(seconds: float = 0.3) -> int:
    """How many of the cores that this process may use have been idle in the next ``seconds``, at
    least one."""
    busy = psutil.cpu_percent(seconds, percpu=True)
    process = psutil.Process()
    own = process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(len(busy))
    idle = sum(1 - busy[core] / 100 for core in own if core < len(busy))
    return max(1, int(idle + SPARE))


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_peak(device: torch.device) -> int | None:
    """The most bytes of tensors ever held on a CUDA device since its count began, else None."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def main_memory() -> int:
    """Bytes of main memory that the machine has."""
    return int(psutil.virtual_memory().total)


def peak_memory() -> int | None:
    """The most main memory this process ever held, in bytes; None where it cannot be told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def choose_device(name: str = "", deterministic: bool = False) -> torch.device:
    """The device called ``name``, or the best there is; ``deterministic`` repeats exactly on CUDA.

    EraseError when there is no such device.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # older torch asks for it
        torch.use_deterministic_algorithms(True)
    try:
        device = torch.device(name or _best_device())
        torch.zeros(1, device=device).item()  # "meta" makes tensors, too, but computes nothing
    except (RuntimeError, AssertionError) as error:
        raise EraseError(f"There is no device {name} here; try --device cpu.") from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
