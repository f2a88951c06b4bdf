"""A base from ComfyUI-GGUF's loader: the eraser acts there, and can be trained there.

COMFYUI_GGUF names the folder of city96/ComfyUI-GGUF; the host's Python needs the package gguf.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from host.test_inside import inside

PACK = os.environ.get("COMFYUI_GGUF", "")
pytestmark = pytest.mark.skipif(not PACK, reason="COMFYUI_GGUF names no ComfyUI-GGUF")


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    found = inside("gguf", base, environment, tmp_path_factory.mktemp("gguf"), "gguf_base.py")
    broken = [told["raised"] for told in found.values() if "raised" in told]
    assert broken == [], broken[0]
    return found


@pytest.mark.parametrize("strength", ["plain", "0.3", "1", "2"])
def test_pictures_are_those_of_the_same_numbers_without_gguf(
    measured: dict[str, Any], strength: str
) -> None:
    found = measured["drawing"]
    assert found[strength] < 1e-4 < 0.01 < found["change"], found


def test_gradients_are_those_of_the_same_numbers_without_gguf(measured: dict[str, Any]) -> None:
    found = measured["training"]
    assert found["gradients"] < 1e-4 and found["solved"] < 1e-4, found


def test_a_training_ends_and_leaves_the_weights_as_they_were(measured: dict[str, Any]) -> None:
    found = measured["training"]
    assert found["success"] and found["untouched"] and not found["told"], found
