"""Every command on a small Chroma with random weights, from files to file."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from cli import toys
from cli.toys import DRAW, SHORT, draw
from tiny import CHROMA, TIGER

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.chroma.tree import Chroma
from erase_core.models.flux1.names import file_keys
from erase_core.tensors import save_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a transformer, and a concept set. MiniFlux has the T5 and the autoencoder."""
    made = tmp_path_factory.mktemp("chroma")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tree = Chroma(replace(CHROMA, context_in_dim=256))
    save_tensors(made / "chroma.safetensors", file_keys(tree.state_dict()))
    ConceptSet((TIGER,)).save(made / "tiger.json")
    return made


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the files."""
    monkeypatch.setenv("ERASEANYTHING_CACHE", str(folder / "cache"))
    argv = ["--model", str(folder / "chroma.safetensors"), "--tokenizers", str(FOLDER)]
    argv += ["--t5", str(FOLDER / "t5xxl.safetensors"), "--t5-length", "32"]
    return argv


VAE = ["--vae", str(FOLDER / "vae.safetensors")]


train = partial(toys.train, "chroma")


def test_a_trained_eraser_changes_pictures(folder: Path, base: list[str]) -> None:
    tensors = train(folder, base, "tiger", *SHORT)
    names = {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}
    assert names == {
        f"transformer.transformer_blocks.{n}.attn.{part}"
        for n in range(CHROMA.depth)
        for part in ("add_q_proj", "add_k_proj")
    }
    plain = draw(folder, [*base, *VAE])
    assert draw(folder, [*base, *VAE]) == plain
    lora = ["--lora", str(folder / "tiger.safetensors"), "--strength", "30"]
    others = [lora, ["--negative", "a red house"], ["--guidance", "1"]]
    drawn = [draw(folder, [*base, *VAE], *more) for more in others]
    assert len({plain, *drawn}) == 4
    assert main(["inspect", str(folder / "tiger.safetensors"), *base[:2]]) == 0


@pytest.mark.parametrize("method", ["speed", "uce", "rece", "leace"])
def test_instant_erasers_edit_what_reads_the_tokens(
    method: str, folder: Path, base: list[str]
) -> None:
    few = ["--method", method, "--set", "prompts=3", "kept=1"]
    tensors = train(folder, base, method, *few)
    assert {name for name in tensors if name.endswith(".diff")} == {"diffusion_model.txt_in.diff"}
    assert tensors["diffusion_model.txt_in.diff"].any()
    small = train(folder, base, f"{method}-rank", *few, "rank=4")
    name = "transformer.context_embedder.lora_A.weight"
    assert small[name].shape == (4, 256)


def test_what_reads_a_pooled_vector_is_refused(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", *base, "--concepts", str(folder / "tiger.json"), "--method", "trce"]
    assert main([*argv, "--out", str(folder / "trce.safetensors")]) == 1
    assert "TRCE, stage 1 works on flux1 only" in capsys.readouterr().err


def test_maps_guards_and_acceptance(folder: Path, base: list[str]) -> None:
    out = folder / "map.png"
    words = ["--prompt", "a tiger and a car", "--words", "tiger", "car", *DRAW]
    assert main(["attention", *base, *VAE, *words, "--out", str(out)]) == 0 and out.is_file()
    guard = folder / "guard.json"
    argv = ["guard", "--concepts", str(folder / "tiger.json"), "--out", str(guard)]
    assert main(argv) == 0
    assert draw(folder, [*base, *VAE], "--guard", str(guard)) != draw(folder, [*base, *VAE])
    accepted = folder / "accepted"
    argv = ["accept", *base, *VAE, "--steps", "2", "--draw-steps", "2", "--size", "32x48"]
    assert main([*argv, "--out", str(accepted)]) == 0
    report = json.loads((accepted / "report.json").read_text())
    assert report["velocity"]["agrees"] and report["velocity"]["relative_difference"] < 0.001
    assert report["files"]["model"]["family"] == "chroma"


def test_a_negative_prompt_is_refused_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "--prompt", "a cat", "--negative", "blur", "--out", str(tmp_path / "a.png")]
    assert main(argv) == 1
    assert "FLUX.1 draws without a negative prompt; leave --negative out" in capsys.readouterr().err


def test_a_missing_encoder_is_named(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", *base[:2], *VAE, "--prompt", "a cat", "--out", str(folder / "no.png")]
    assert main(argv) == 1
    assert "needs its text encoders; name one with --t5." in capsys.readouterr().err
