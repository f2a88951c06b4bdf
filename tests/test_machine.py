"""How many threads a CPU computes with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from erase_core import machine
from erase_core.machine import idle_cores, using_threads

CPU = torch.device("cpu")


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, and nobody says otherwise."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def busy(monkeypatch: pytest.MonkeyPatch, *percent: float, own: list[int] | None = None) -> None:
    monkeypatch.setattr(machine.psutil, "cpu_percent", lambda *args, **more: list(percent))
    process = SimpleNamespace(cpu_affinity=lambda: own or list(range(len(percent))))
    monkeypatch.setattr(machine.psutil, "Process", lambda: process)


@pytest.mark.parametrize(
    ("percent", "idle"),
    [
        ((0, 0), 2),
        ((8, 15), 2),
        ((100, 0), 1),
        ((55, 60), 1),  # one busy process that changes its core
        ((100, 100), 1),
        ((100, 5, 0, 2), 3),
    ],
)
def test_idle_cores(monkeypatch: pytest.MonkeyPatch, percent: tuple[float, ...], idle: int) -> None:
    busy(monkeypatch, *percent)
    assert idle_cores() == idle


def test_cores_of_others_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0, 0, 100, 0, own=[2, 3])
    assert idle_cores() == 1


def test_threads_leave_busy_cores_alone_and_come_back(
    monkeypatch: pytest.MonkeyPatch, four: None
) -> None:
    busy(monkeypatch, 100, 100, 0, 0)
    with using_threads(CPU):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4
    busy(monkeypatch, *[0.0] * 16)
    with using_threads(CPU):  # never more than torch itself takes
        assert torch.get_num_threads() == 4
    with pytest.raises(ZeroDivisionError), using_threads(CPU, 3):
        assert torch.get_num_threads() == 3
        raise ZeroDivisionError
    assert torch.get_num_threads() == 4


def test_what_is_told_stays(monkeypatch: pytest.MonkeyPatch, four: None) -> None:
    busy(monkeypatch, 100, 100, 0, 0)
    with using_threads(torch.device("meta")):  # another device than the CPU computes
        assert torch.get_num_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with using_threads(CPU):
        assert torch.get_num_threads() == 4
