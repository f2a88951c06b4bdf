"""An eraser where people use LoRAs, in the host's own process.

The same tests hold on an older host (COMFYUI_PATH, COMFYUI_PYTHON). test_gguf.py has a GGUF base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.test_inside import inside

STRENGTHS = ("-1", "0.3", "1", "2")


@pytest.fixture(scope="module")
def matrix(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    found = inside("matrix", base, environment, tmp_path_factory.mktemp("matrix"), "matrix.py")
    broken = [told["raised"] for told in found.values() if "raised" in told]
    assert broken == [], broken[0]
    return found


@pytest.mark.parametrize("strength", STRENGTHS)
def test_at_every_strength_the_host_computes_what_the_core_does(
    matrix: dict[str, Any], strength: str
) -> None:
    found = matrix["strengths"][strength]
    assert found["difference"] < 1e-4 < 0.01 < found["change"], found


def test_strengths_differ_and_leave_nothing_behind(matrix: dict[str, Any]) -> None:
    found = matrix["strengths"]
    assert found["0.3"]["change"] < found["1"]["change"] < found["2"]["change"], found
    assert found["again"] < 1e-6


def test_beside_a_style_lora_both_act_whatever_their_order(matrix: dict[str, Any]) -> None:
    found = matrix["style"]
    assert found["order"] < 1e-4 and found["one_file"] < 1e-4 < 0.01 < found["change"], found
    assert found["taken"] == found["told"]


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_on_an_fp8_base_the_eraser_does_the_same(matrix: dict[str, Any], dtype: str) -> None:
    found = matrix["fp8"][dtype]
    assert found["cosine"] > 0.8 and 0.7 < found["size"] < 1.4, found


@pytest.mark.parametrize("memory", ["none", "half"])
def test_with_little_memory_the_eraser_does_the_same(matrix: dict[str, Any], memory: str) -> None:
    found = matrix["memory"]
    assert found["away"][0] == 2, found  # both blocks' weights are patched on their way
    assert found[memory] < 1e-4 < 0.01 < found["change"], found
