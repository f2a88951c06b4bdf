"""Z-Image in the host: its own classes, samplers and forward beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.conftest import HOST
from host.family import InTheHost, measure


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    if "class ZImage(" not in (Path(HOST) / "comfy" / "supported_models.py").read_text("utf-8"):
        pytest.skip("this host has no Z-Image")
    return measure("zimage", base, environment, tmp_path_factory.mktemp("zimage"))


def test_qwen3_says_in_the_host_what_it_says_in_transformers(measured: dict[str, Any]) -> None:
    text = measured["text"]
    assert text["shape"] == [5, 64, 32] and text["spread"] > 0.1 and text["same_length"]
    assert text["difference"] < 1e-4 and text["negative"] == 0, text
    assert text["word"] == " tiger" and text["same_mask"]


class TestZImage(InTheHost):
    name, file, steps = "zimage", "z_image_toy", [1, 8]


def test_nodes_run_and_leave_the_model_alone(measured: dict[str, Any]) -> None:
    nodes = measured["nodes"]
    assert nodes["outcomes"] == dict.fromkeys(("train", "instant", "attention", "preview"), True)
    assert nodes["untouched"]
    assert nodes["edited"] == ["diffusion_model.cap_embedder.1.diff"]
    assert nodes["trained"] == {
        "keys": 2 * (1 + 7),
        "first": "transformer.cap_embedder.1.lora_A.weight",
        "base": "zimage",
        "finite": True,
    }


def test_the_schedule_is_the_models_own(measured: dict[str, Any]) -> None:
    shift, difference = measured["shift"]
    assert shift == pytest.approx(1.0986, abs=1e-4) and difference < 1e-6


def test_the_turbo_model_is_told_by_its_name(measured: dict[str, Any]) -> None:
    assert measured["distilled"]["steps"] == 8
    assert "train on the base model" in measured["distilled"]["notice"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("clip", "load qwen_3_4b with CLIPLoader (Load CLIP), type lumina2"),
        ("klein", "load qwen_3_4b with CLIPLoader (Load CLIP), type lumina2"),
        ("wide", "belongs to another MODEL"),
        ("long", "longer than 512 tokens"),
        ("half", "--bf16-unet"),
        ("edits", "This MODEL is a Z-Image that edits pictures"),
        ("lumina", "or Z-Image; connect a"),
        ("hidden", "hides its blocks"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    assert words in said and said.endswith(".") and "\n" not in said
