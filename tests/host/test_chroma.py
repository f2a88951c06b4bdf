"""Chroma in the host: its own loaders, samplers and forward beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host.test_inside import inside

ROLES = 8  # that Chroma has


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("chroma")
    found = inside("chroma", base, environment, out, "chroma.py")
    told = [said for said in found.values() if isinstance(said, dict)]
    broken = [said["raised"] for said in told if "raised" in said]
    assert not broken, broken[0]
    return found


def test_t5_says_in_the_host_what_it_says_in_transformers(measured: dict[str, Any]) -> None:
    text = measured["text"]
    assert text["lengths"] == [0, 0, 0, 0] and text["length"] == 256
    assert text["difference"] < 1e-5 and text["negative"] == 0, text
    assert text["word"].endswith("tiger")


def test_our_forward_and_our_files_are_the_hosts(measured: dict[str, Any]) -> None:
    velocity = measured["velocity"]
    assert velocity["change"] > 0.02 and velocity["edit_change"] > 0.02, velocity
    assert max(velocity[name] for name in ("plain", "lora", "edit", "carried")) < 1e-4, velocity
    assert velocity["not_loaded"] == []
    assert (velocity["family"], velocity["name"]) == ("chroma", "chroma")


def test_gradients_through_inference_tensors_are_the_standalone_trees(
    measured: dict[str, Any],
) -> None:
    assert measured["gradients"] < 1e-4


def test_the_hosts_sampler_draws_what_ours_draws(measured: dict[str, Any]) -> None:
    pictures = measured["pictures"]
    assert pictures["contrast"] > 0.05 and pictures["unguided"] > 0.02, pictures
    assert pictures["mean"] < 2 / 255, pictures  # ours are rounded to 8 bits
    assert pictures["steps"] == [2, 9]


def test_nodes_run_and_leave_the_model_alone(measured: dict[str, Any]) -> None:
    nodes = measured["nodes"]
    names = ("train", "instant", "attention", "preview", "report")
    assert nodes["outcomes"] == dict.fromkeys(names, True)
    assert nodes["untouched"]
    assert nodes["edited"] == ["diffusion_model.txt_in.diff"]
    assert nodes["trained"] == {
        "keys": 76,
        "first": "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight",
        "base": "chroma",
        "finite": True,
    }


def test_the_schedule_is_the_models_own(measured: dict[str, Any]) -> None:
    (own, as_it_comes), (plain, patched), (shifted, by_three) = measured["shift"]
    assert own == pytest.approx(1.15) and plain is None and shifted == pytest.approx(1.0986, 1e-4)
    assert as_it_comes < 1e-6 and patched < 1e-6 and by_three < 2e-3, measured["shift"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "ChromaRadiance",
            "This MODEL is ChromaRadiance, not Chroma or FLUX.1 or FLUX.2 klein or "
            "Qwen-Image or Stable Diffusion 3.5 or Z-Image; connect a",
        ),
        (
            "LongCatImage",
            "This MODEL is LongCatImage, not Chroma or FLUX.1 or FLUX.2 klein or "
            "Qwen-Image or Stable Diffusion 3.5 or Z-Image; connect a",
        ),
        ("clip", "load t5xxl with CLIPLoader (Load CLIP), type chroma"),
        ("flux", "load both with DualCLIPLoader"),
        ("wide", "belongs to another MODEL"),
        ("long", "longer than 256 T5 tokens"),
        ("half", "--bf16-unet"),
        ("judge", "has no CLIP-L to judge with; connect one"),
        ("load_flux", "chroma.safetensors is Chroma, which this node does not load; take Load"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    if what == "LongCatImage" and not said:
        pytest.skip("this host has no LongCat-Image")
    assert words in said and said.endswith(".") and "\n" not in said
