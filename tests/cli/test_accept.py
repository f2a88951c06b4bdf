"""``eraseanything accept``: the whole chain on files, and a folder that tells no secrets."""

from __future__ import annotations

import json
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import erase_core.miniatures.miniflux as miniflux
import erase_core.models.flux1.pipeline as pipeline
import erase_core.models.flux1.text as encoders
from erase_core.cli.evidence import Evidence
from erase_core.cli.main import main
from erase_core.files import sha256
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import velocity
from erase_core.models.flux1.names import file_keys
from erase_core.models.flux1.parity import diffusers_velocity
from erase_core.models.flux1.tree import Flux
from erase_core.models.load import load
from erase_core.tensors import read_tensors

SMALL = {"batch": 2, "rollout_steps": 2, "erase_rollouts": 2, "keep_rollouts": 2}
SIZE = {"height": 128, "width": 128}  # files have a bigger one of their own
SHORT = ["--steps", "5", "--draw-steps", "2", "--size", "64x64"]
FOLDER = miniflux.FOLDER
MINIFLUX = FluxConfig(
    vec_in_dim=128, context_in_dim=256, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of MiniFlux and of files for a run of seconds."""
    balanced = miniflux.PRESETS["eraseanything"]["balanced"]["all"]
    own = {"eraseanything": {"balanced": {"all": balanced | SMALL | SIZE}}}
    monkeypatch.setattr(miniflux, "PRESETS", own)
    monkeypatch.setattr("erase_core.models.files.read_presets", lambda path: own)


def files(folder: Path, model: Path) -> list[str]:
    """MiniFlux's encoders and autoencoder beside ``model``, linked from ``folder``."""
    argv = ["--model", str(model), "--tokenizers", str(FOLDER), "--t5-length", "64"]
    for flag, name in (("--clip-l", "clip_l"), ("--t5", "t5xxl"), ("--vae", "vae")):
        link = folder / f"{name}.safetensors"
        link.symlink_to(FOLDER / link.name)
        argv += [flag, str(link)]
    return argv


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def random_file(path: Path, config: FluxConfig, dtype: torch.dtype) -> Path:
    """A transformer with random weights that moves its latents a little, in BFL's layout."""
    g = torch.Generator().manual_seed(0)
    state = {}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Flux(config).state_dict().items()}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=g, dtype=torch.bfloat16)
        gain = shape[-1] ** -0.5 if len(shape) == 2 else 0.02
        tensor = drawn * gain + (1.0 if "norm" in name else 0.0)
        state[name] = tensor.to(dtype) if len(shape) == 2 and "blocks" in name else tensor
    save_file(file_keys(state), path)
    return path


def test_everything_is_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "accepted"
    assert main(["accept", "--out", str(out), *SHORT, "--json"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "before_after.png",
        "lora.safetensors",
        "report.json",
        "warnings.log",
    ]
    report = read(out)
    assert json.loads(capsys.readouterr().out) == report
    assert report["files"]["model"]["problems"] == {}
    assert report["files"]["model"]["config"]["hidden_size"] == 256
    assert report["velocity"]["relative_difference"] < 0.01
    assert report["measured"]["iterations_timed"] == 4
    whole = report["whole_run"]
    assert whole["total_seconds"] > whole["seconds"]["training"] > 0
    assert set(report["versions"]) > {"torch", "eraseanything", "python"}
    assert len(report["history"]) == 5
    assert main(["accept", "--out", str(out), *SHORT]) == 1  # nothing is replaced unasked


def test_files_of_the_user_are_accepted(tmp_path: Path) -> None:
    model = random_file(tmp_path / "fp8.safetensors", MINIFLUX, torch.float8_e4m3fn)
    out = tmp_path / "out"
    argv = ["accept", *files(tmp_path, model), "--out", str(out), *SHORT, "--memory", "0.012"]
    assert main(argv) == 0
    report = read(out)
    assert report["files"]["model"]["dtypes"]["float8_e4m3fn"] > 0
    assert "of its blocks in main memory" in report["predicted"]["kept"]
    assert report["files"]["t5"]["name"] == "t5xxl.safetensors"
    assert report["velocity"]["agrees"]
    assert str(tmp_path) not in (out / "report.json").read_text()


@pytest.mark.parametrize("command", ["accept", "train"])
def test_text_encoders_are_gone_when_rollouts_begin(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    alive: list[bool] = []
    load_t5, roll_out = encoders.load_t5, Trainer._roll_out

    def load_seen(path: Path) -> Any:
        model = load_t5(path)
        matrices = [m.stored for m in model.modules() if isinstance(m, encoders._StoredLinear)]
        seen.extend(weakref.ref(part) for part in (*model.parameters(), *matrices))
        return model

    def look(*args: Any) -> Any:
        alive.extend(part() is not None for part in seen)
        return roll_out(*args)

    monkeypatch.setattr(pipeline, "load_t5", load_seen)
    monkeypatch.setattr(Trainer, "_roll_out", look)
    argv = [command, *files(tmp_path, FOLDER / "transformer.safetensors"), "--steps", "2"]
    small_size = ["--height", "64", "--width", "64"]
    more = {
        "accept": ["--draw-steps", "2", "--size", "64x64", "--out", str(tmp_path / "out")],
        "train": ["--concept", "tiger", "--out", str(tmp_path / "tiger.safetensors"), *small_size],
    }
    assert main([*argv, *more[command]]) == 0
    assert len(alive) > 20 and not any(alive)
    if command == "train":
        told = read_tensors(tmp_path / "tiger.safetensors")[1]
        assert told["erase.base_sha256"] == sha256(FOLDER / "transformer.safetensors")


def test_a_damaged_file_is_told_key_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = random_file(tmp_path / "damaged.safetensors", MINIFLUX, torch.bfloat16)
    tensors, _ = read_tensors(model)
    shape = tensors.pop("single_blocks.1.linear1.bias").shape
    tensors |= {"extra.weight": torch.ones(2), "img_in.bias": torch.ones(3)}
    save_file(tensors, model)
    out = tmp_path / "out"
    assert main(["accept", *files(tmp_path, model), "--out", str(out)]) == 1
    assert "damaged.safetensors lacks 1 tensors" in capsys.readouterr().err
    report = read(out)
    assert report["failed"]["stage"] == "loading"
    found = {what: told["first"] for what, told in report["files"]["model"]["problems"].items()}
    assert found == {
        "lacks": ["single_blocks.1.linear1.bias"],
        "has beyond FLUX.1's": ["extra.weight [2]"],
        "has in the wrong shape": ["img_in.bias [3]"],
    }
    assert len(shape) == 1 and not (out / "lora.safetensors").exists()


def test_reports_name_files_but_no_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = files(tmp_path, tmp_path / "nowhere.safetensors")
    assert main(["accept", *argv, "--out", str(out)]) == 1
    error = read(out)["failed"]["error"]
    assert error == "EraseError: There is no file nowhere.safetensors; check the path."


def test_a_report_outlives_numbers_that_are_none(tmp_path: Path) -> None:
    evidence = Evidence("accept", [])
    with pytest.raises(ZeroDivisionError), evidence.written_to(tmp_path), evidence.stage("compare"):
        evidence.content["compare"] = {"relative_difference": float("nan"), "of": [float("inf")]}
        warnings.warn("odd weights", stacklevel=1)
        raise ZeroDivisionError
    report = read(tmp_path)
    assert report["compare"] == {"relative_difference": "nan", "of": ["inf"]}
    assert report["failed"]["error"].startswith("ZeroDivisionError")
    assert "odd weights" in (tmp_path / "warnings.log").read_text()


def test_encoders_of_another_width_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = replace(MINIFLUX, context_in_dim=512)
    model = random_file(tmp_path / "wide.safetensors", wide, torch.bfloat16)
    argv = ["accept", *files(tmp_path, model), "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    assert "256 wide, but the model reads 512" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_diffusers_moves_as_we_do(tmp_path: Path, dtype: torch.dtype) -> None:
    path = random_file(tmp_path / "model.safetensors", MINIFLUX, dtype)
    tree, config = load(FAMILY, path, dtype=torch.float32 if dtype == torch.float32 else None)
    g = torch.Generator().manual_seed(1)
    cond = Conditioning(torch.randn(1, 9, 256, generator=g), torch.randn(1, 128, generator=g))
    x, sigma = torch.randn(1, 16, 4, 6, generator=g), torch.tensor([0.25])
    theirs = diffusers_velocity(tree, config, x, sigma, cond, 4.0)
    with torch.no_grad():
        ours = velocity(tree, x, sigma, cond, 4.0)
    bound = 1e-5 if dtype == torch.float32 else 0.03
    assert (ours - theirs).norm() < bound * theirs.norm()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_model_of_full_width_is_accepted(tmp_path: Path, dtype: torch.dtype) -> None:
    config = replace(MINIFLUX, hidden_size=3072, num_heads=24, depth=1, depth_single_blocks=1)
    model = random_file(tmp_path / "wide.safetensors", config, dtype)
    out = tmp_path / "out"
    argv = ["accept", *files(tmp_path, model), "--out", str(out), *SHORT, "--batch", "1"]
    assert main(argv) == 0
    report = read(out)
    assert report["files"]["model"]["config"]["hidden_size"] == 3072
    assert report["velocity"]["agrees"]
