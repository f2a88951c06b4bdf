"""The host's own objects through our eyes: numbers measured in the host's process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from host import graphs
from host.conftest import HOST, PYTHON, ROOT


def inside(
    kind: str, base: Path, environment: dict[str, str], out: Path, script: str = "measures.py"
) -> dict[str, Any]:
    """What a script measures in the host's process."""
    (out / "train.json").write_text(json.dumps(graphs.train(steps=2)))
    script = str(ROOT / "tests" / "host" / script)
    places = [str(path) for path in (HOST, ROOT, base, out / "out.json")]
    done = subprocess.run(
        [str(PYTHON), script, kind, *places],
        cwd=HOST,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "out.json").read_text())


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    return inside("measure", base, environment, tmp_path_factory.mktemp("inside"))


def test_miniflux_encoders_say_in_the_host_what_they_say_in_transformers(
    measured: dict[str, Any],
) -> None:
    text = measured["text"]
    assert text["length"] == 64 and text["masks_equal"] == 1
    assert max(text["context"], text["pooled"], text["weights_are_literal"]) < 1e-5, text


def test_an_edit_of_clip_is_taken_by_the_hosts_lora_loader(measured: dict[str, Any]) -> None:
    text = measured["text"]
    assert text["edit"] < 1e-3 < 0.01 < text["edit_change"], text


def test_the_velocity_of_host_and_lora_is_the_trainers_own(measured: dict[str, Any]) -> None:
    velocity = measured["velocity"]
    assert velocity["change"] > 0.1
    assert velocity["edit_change"] > 0.05  # the benchmark's weight edits load there, too
    differences = [velocity[name] for name in ("plain", "lora", "half", "carried", "edit")]
    assert max(differences) < 1e-4, velocity


def test_gradients_through_inference_tensors_are_the_standalone_trees(
    measured: dict[str, Any],
) -> None:
    gradients = measured["gradients"]
    assert gradients["inference_tensors"] == 1
    assert gradients["fp32"] < 1e-5, gradients


@pytest.mark.parametrize("kind", ["fp8", "fp8_scaled"])
def test_fp8_bases_compute_as_in_the_host_and_train_nearly_as_the_exact_one(
    measured: dict[str, Any], kind: str
) -> None:
    gradients = measured["gradients"]
    if kind not in gradients:
        pytest.skip("this host reads no small scaled fp8 file")
    assert gradients[f"{kind}_to_host"] < 1e-5, gradients
    assert gradients[f"{kind}_solved"] < 0.06, gradients  # an instant eraser
    assert gradients[f"{kind}_velocity"] < 0.15 and gradients[kind] < 0.25, gradients


def test_the_hosts_loaders_draw_what_ours_draws(measured: dict[str, Any]) -> None:
    pictures = measured["pictures"]
    assert pictures["contrast"] > 0.1
    assert pictures["mean"] < 1.5 / 255, pictures  # ours are rounded to 8 bits


@pytest.mark.parametrize("ending", ["success", "error", "cancel"])
def test_the_model_comes_back_bit_for_bit(measured: dict[str, Any], ending: str) -> None:
    succeeded, same, *_ = measured["untouched"][ending]
    assert succeeded == (ending == "success") and same


def test_an_error_and_a_cancel_keep_the_work(measured: dict[str, Any]) -> None:
    untouched = measured["untouched"]
    assert untouched["error_file"] == untouched["cancel_file"] == 1
    message = untouched["error"][2]
    assert message.count("Cannot write the checkpoint") == 1
    assert "broken_00001.partial-1" in message


def test_a_failing_preview_is_one_warning_and_the_training_goes_on(
    measured: dict[str, Any],
) -> None:
    previews = measured["previews"]
    assert previews["success"] and previews["files"] == 1
    (warning,) = previews["warnings"]
    assert "the VAE is broken" in warning
    assert previews["silent"]  # to every page, where none queued the run


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("sd15", "SD15, not Chroma or FLUX.1"),
        ("wan", "WAN21_T2V, not Chroma or FLUX.1"),
        ("packed", "integer weights"),
        ("hidden", "Nunchaku"),
        ("kontext", "Kontext, which edits pictures"),
        ("fill", "takes more than a prompt"),
        ("half", "--bf16-unet"),
        ("no_t5", "load both with DualCLIPLoader"),
        ("other_clip", "belongs to another MODEL"),
        ("nan_lora", "holds NaN or infinity"),
        ("foreign_nan", "holds NaN or infinity"),
        ("half_lora", "lacks"),
        ("encoder_edit", "changes the text encoder"),
        ("long", "longer than 64 T5 tokens"),
        ("dots", "without .."),
        ("absolute", "is no name"),
        ("drive", "without a drive"),
        ("empty", "is no name"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    measured: dict[str, Any], what: str, words: str
) -> None:
    said = measured["refusals"][what]
    assert words in said and said.endswith(".") and "\n" not in said


def test_names_of_files(measured: dict[str, Any]) -> None:
    assert measured["names"] == {"free": "tiger_00002.safetensors", "linked": ""}


def test_erase_settings_at_their_defaults_leave_several_concepts_what_they_get(
    measured: dict[str, Any],
) -> None:
    assert measured["plans"] == [[8, 48, 50, 2], [16, 48 + 5 * 18, 50, 2]]


def test_erase_settings_change_what_is_set_and_nothing_else(measured: dict[str, Any]) -> None:
    assert measured["overrides"] == [
        {"preset": ""},
        {
            "preset": "fast",
            "alpha": None,
            "eta": 0,
            "l_adv": 0,
            "attention_blocks": [0, 1],
            "null": "empty",
            "checkpoint_every": 0,
            "activation_checkpointing": True,
        },
    ]


def test_words_and_pictures_meet_in_clips_joint_space(measured: dict[str, Any]) -> None:
    vision = measured["clip_vision"]
    assert "lacks its text projection" in vision["unprojected"]
    assert vision["words"] < 1e-5 and vision["pictures"] == [3, 128]
    assert "does not belong to CLIP-L" in vision["refused"]


def test_words_are_found_among_the_tokens_of_the_hosts_own_t5(measured: dict[str, Any]) -> None:
    tokens = measured["t5_tokens"]
    assert tokens["length"] == 256
    assert tokens["spelled"]["tiger"].replace(" ", "") == "tigerstiger"
    assert tokens["spelled"]["lion"].startswith("lion")
    assert tokens["spelled"]["striped"].replace(" ", "") == "striped"


@pytest.mark.slow
def test_flux_width_goes_through_the_hosts_own_loaders(
    base: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    full = inside("slow", base, environment, tmp_path)["full_width"]
    assert full["keys"] == [
        f"transformer.transformer_blocks.0.attn.{part}.lora_{side}.weight"
        for part in ("add_k_proj", "add_q_proj")
        for side in "AB"
    ]
    assert full["stopped"] == "done" and all(value > 0 for value in full["esd"])
    assert full["change"] > 1e-3
    assert full["difference"] < 1e-3 * full["change"] or full["difference"] < 1e-5, full
