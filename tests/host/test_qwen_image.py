"""Qwen-Image in the host: its own classes, samplers and forward beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.family import InTheHost, measure


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    return measure("qwen", base, environment, tmp_path_factory.mktemp("qwen"))


def test_qwen_says_in_the_host_what_it_says_in_transformers(measured: dict[str, Any]) -> None:
    """The template's 34 tokens are not handed on."""
    text = measured["text"]
    assert text["before"] == [34, 34] and text["shape"] == [5, 36, 256], text
    assert text["spread"] > 0.1 and text["same_length"]
    assert text["difference"] < 1e-4 and text["negative"] == 0, text
    assert text["word"] == " tiger" and text["same_mask"]


class TestQwenImage(InTheHost):
    name, file, steps = "qwen_image", "qwen_image_toy", [1, 8]


def test_the_autoencoder_is_the_hosts(measured: dict[str, Any]) -> None:
    """Of pictures that are no film: each is encoded by itself."""
    vae = measured["vae"]
    assert vae["shapes"] == [[2, 3, 64, 96], [2, 16, 8, 12]] and min(vae["spread"]) > 0.05, vae
    assert max(vae["drawn"], vae["encoded"]) < 1e-4, vae


def test_nodes_run_and_leave_the_model_alone(measured: dict[str, Any]) -> None:
    nodes = measured["nodes"]
    assert nodes["outcomes"] == dict.fromkeys(("train", "instant", "attention", "preview"), True)
    assert nodes["untouched"]
    assert [name for name in nodes["edited"] if name.endswith(".diff")] == [
        "diffusion_model.txt_in.diff"
    ]
    assert nodes["trained"] == {
        "keys": 2 * 2 * 2,
        "first": "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight",
        "base": "qwen_image",
        "finite": True,
    }


def test_the_schedule_is_the_models_own(measured: dict[str, Any]) -> None:
    shift, difference = measured["shift"]
    assert shift == pytest.approx(1.15) and difference < 1e-6


def test_the_distilled_model_is_told_by_its_name(measured: dict[str, Any]) -> None:
    assert measured["distilled"]["steps"] == 8
    assert "train on the base model" in measured["distilled"]["notice"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("clip", "load qwen_2.5_vl_7b with CLIPLoader (Load CLIP), type qwen_image"),
        ("chatless", "load qwen_2.5_vl_7b with CLIPLoader (Load CLIP), type qwen_image"),
        ("wide", "belongs to another MODEL"),
        ("long", "longer than 512 tokens"),
        ("half", "--bf16-unet"),
        ("hidden", "hides its blocks"),
        ("inputs", "This MODEL takes more than a prompt"),
        ("edit", "This MODEL is Qwen-Image-Edit, which edits pictures"),
        ("plus", "This MODEL is Qwen-Image-Edit-Plus, which edits several pictures"),
        ("timed", "This MODEL is Qwen-Image-Edit-Plus, which edits several pictures"),
        ("layered", "This MODEL is Qwen-Image-Layered, which splits a picture into layers"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    assert words in said and said.endswith(".") and "\n" not in said
