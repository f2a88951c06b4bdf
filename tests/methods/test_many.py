"""A hundred concepts at FLUX.1's true widths, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU_SECONDS = 30  # 15 seconds of two cores, whatever else they do


@pytest.mark.slow
def test_a_hundred_concepts_are_solved_for_in_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "tools/bench/instant.py", "--concepts", "100"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["concepts"] == 100 and 2000 < told["rows"]["txt_in"] <= 4000
    for name, cost in told["methods"].items():
        assert cost["peak_gb"] <= 4, (name, cost)
    for name in ("uce", "speed"):
        assert told["methods"][name]["cpu_seconds"] <= CPU_SECONDS, told["methods"][name]
