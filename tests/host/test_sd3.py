"""Stable Diffusion 3.5 in the host: its own classes, samplers and forward beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.family import InTheHost, measure


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    return measure("sd3", base, environment, tmp_path_factory.mktemp("sd3"))


def test_the_encoders_say_in_the_host_what_they_say_in_transformers(
    measured: dict[str, Any],
) -> None:
    text = measured["text"]
    assert text["shape"] == [5, 154, 4096] and min(text["spread"]) > 0.02, text
    assert max(text["clip"], text["t5"], text["pooled"]) < 1e-4 and text["negative"] == 0, text
    assert [word.strip("\u2581 ") for word in text["words"]] == ["tiger"] * 3, text
    assert text["same_mask"]


class TestSD3(InTheHost):
    name, file, steps = "sd3", "sd3.5_toy", [2, 8]  # both prompts at once


def test_fp8_computes_as_the_host_does(measured: dict[str, Any]) -> None:
    assert measured["narrow"] < 1e-4


def test_load_checkpoint_gives_it_and_tells_its_file(measured: dict[str, Any]) -> None:
    """ComfyUI 0.3.64 tells no file."""
    found = measured["checkpoint"]
    assert found["difference"] < 1e-4 and found["file"] in ("", "sd3.5_toy_incl.safetensors")


def test_nodes_run_and_leave_the_model_alone(measured: dict[str, Any]) -> None:
    nodes = measured["nodes"]
    assert nodes["outcomes"] == dict.fromkeys(("train", "instant", "attention", "preview"), True)
    assert nodes["untouched"]
    changed = [f"diffusion_model.{name}" for name in ("context_embedder", "y_embedder.mlp.0")]
    assert [name for name in nodes["edited"] if name.endswith(".diff")] == [
        f"{name}.diff" for name in changed
    ]
    assert nodes["trained"] == {
        "keys": 2 * 2 * 2,
        "first": "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight",
        "base": "sd3",
        "finite": True,
    }


def test_the_schedule_is_the_models_own(measured: dict[str, Any]) -> None:
    shift, difference = measured["shift"]
    assert shift == pytest.approx(1.0986, abs=1e-4) and difference < 1e-6


def test_the_turbo_model_is_told_by_its_name(measured: dict[str, Any]) -> None:
    if measured["velocity"]["name"] == "sd3":
        pytest.skip("this host does not tell a MODEL's file")
    assert measured["distilled"]["steps"] == 4
    assert "train on the base model" in measured["distilled"]["notice"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("flux", "or load them with TripleCLIPLoader"),
        ("two", "or load them with TripleCLIPLoader"),
        ("wide", "belongs to another MODEL"),
        ("clip", "longer than 77 CLIP tokens"),
        ("t5", "longer than 77 T5 tokens"),
        ("half", "--bf16-unet"),
        ("hidden", "hides its blocks"),
        ("large", "at most 256 px a side"),
        ("loader", "take Load Diffusion Model, TripleCLIPLoader and Load VAE"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    assert words in said and said.endswith(".") and "\n" not in said
