"""FLUX.2 klein in the host: its own loaders, samplers and forward beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.conftest import HOST
from host.family import InTheHost, measure


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    if "class Flux2(" not in (Path(HOST) / "comfy" / "model_base.py").read_text("utf-8"):
        pytest.skip("this host has no FLUX.2")
    return measure("flux2", base, environment, tmp_path_factory.mktemp("flux2"))


def test_qwen3_says_in_the_host_what_it_says_in_transformers(measured: dict[str, Any]) -> None:
    text = measured["text"]
    assert text["shape"] == [4, 512, 96] and text["spread"] > 0.1
    assert text["difference"] < 1e-4 and text["negative"] == 0, text
    assert text["word"] == " tiger" and text["same_mask"]


class TestFlux2(InTheHost):
    name, file, steps = "flux2", "flux-2-klein-base-toy", [2, 6]


def test_nodes_run_and_leave_the_model_alone(measured: dict[str, Any]) -> None:
    nodes = measured["nodes"]
    assert nodes["outcomes"] == dict.fromkeys(("train", "instant", "attention", "preview"), True)
    assert nodes["untouched"]
    assert nodes["edited"] == ["diffusion_model.txt_in.diff"]
    assert nodes["trained"] == {
        "keys": 8,
        "first": "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight",
        "base": "flux2",
        "finite": True,
    }


def test_the_schedule_is_the_models_own(measured: dict[str, Any]) -> None:
    shift, difference = measured["shift"]
    assert shift == pytest.approx(2.02) and difference < 1e-6


def test_a_distilled_file_is_told_by_its_name(measured: dict[str, Any]) -> None:
    assert measured["distilled"]["steps"] == 4
    assert "train on the base model" in measured["distilled"]["notice"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("clip", "load qwen_3_4b or qwen_3_8b with CLIPLoader (Load CLIP), type flux2"),
        ("zimage", "load qwen_3_4b or qwen_3_8b with CLIPLoader (Load CLIP), type flux2"),
        ("wide", "belongs to another MODEL"),
        ("long", "longer than 512 tokens"),
        ("half", "--bf16-unet"),
        ("dev", "This MODEL is FLUX.2-dev"),
        ("load_flux", "is FLUX.2 klein, which this node does not load; take Load Diffusion Model"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    assert words in said and said.endswith(".") and "\n" not in said
