"""Every command on a toy Stable Diffusion 3.5 with random weights, from a pipeline's folder to
file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from cli import toys
from cli.toys import DRAW, SHORT, draw, near
from sd3 import CONFIG, make_transformer, save_pipeline
from tiny import TIGER

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.models.sd3.names import from_diffusers
from erase_core.tensors import read_tensors, save_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, single files of the same, and a concept set."""
    made = tmp_path_factory.mktemp("sd3")
    save_pipeline(made / "sd")
    state = from_diffusers(make_transformer().state_dict())
    for name in ("sd3.5_large", "sd3.5_large_turbo"):
        save_tensors(made / f"{name}.safetensors", state)
    ConceptSet((TIGER,)).save(made / "tiger.json")
    return made


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the model."""
    monkeypatch.setenv("ERASEANYTHING_CACHE", str(folder / "cache"))
    return ["--model", str(folder / "sd"), "--t5-length", "77"]


def files(folder: Path, name: str) -> list[str]:
    """The same from single files."""
    parts = folder / "sd"
    encoders = {"clip-l": "text_encoder", "clip-g": "text_encoder_2", "t5": "text_encoder_3"}
    argv = ["--model", str(folder / f"{name}.safetensors"), "--tokenizers", str(parts)]
    for flag, part in {**encoders, "vae": "vae"}.items():
        argv += [f"--{flag}", str(parts / part)]
    return [*argv, "--t5-length", "77"]


train = partial(toys.train, "sd3")


def test_a_trained_eraser_changes_pictures(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By default what makes queries and keys of the text."""
    tensors = train(folder, base, "tiger", *SHORT)
    names = {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}
    blocks = [f"transformer.transformer_blocks.{n}.attn" for n in range(CONFIG.depth)]
    assert names == {f"{b}.add_{part}_proj" for b in blocks for part in "qk"}
    assert "distilled" not in capsys.readouterr().err
    plain = draw(folder, base)
    assert draw(folder, base) == plain
    assert near(draw(folder, files(folder, "sd3.5_large")), plain)
    lora = ["--lora", str(folder / "tiger.safetensors"), "--strength", "100"]
    others = [lora, ["--negative", "a red house"], ["--guidance", "1"], ["--t5-length", "60"]]
    drawn = [draw(folder, base, *more) for more in others]
    assert len({plain, *drawn}) == 5
    assert main(["inspect", str(folder / "tiger.safetensors"), *base[:2]]) == 0


def test_every_role_and_loss_trains(folder: Path, base: list[str]) -> None:
    """The image's second attention and the pooled vectors among them, with all four losses and the
    adversaries."""
    roles = ["text.q", "text.v", "text.out", "text.mlp_out", "image.attention", "text_in"]
    more = ["--targets", *roles, "pooled_in", "--l-adv", "1", "--l-rsc", "0.1"]
    tensors = train(folder, base, "roles", *SHORT, *more)
    names = {key.split(".lora_")[0].removeprefix("transformer.") for key in tensors}
    assert {"context_embedder", "transformer_blocks.0.attn2.to_out.0"} <= names
    assert "time_text_embed.text_embedder.linear_2" in names
    assert "transformer_blocks.1.attn.to_add_out" not in names  # the last block writes no text
    _, metadata = read_tensors(folder / "roles.safetensors")
    assert metadata["erase.settings"].count("l_adv")


def test_training_on_the_turbo_model_is_advised_against(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = files(folder, "sd3.5_large_turbo")
    found = toys.rollouts_of_a_distilled_model("sd3", folder, base, argv)
    assert "train on the base model, 3.5 large" in capsys.readouterr().err
    assert found == (1.0, 4)


@pytest.mark.parametrize("method", ["speed", "uce", "rece", "leace"])
def test_instant_erasers_edit_what_reads_the_tokens_and_the_pooled_vectors(
    method: str, folder: Path, base: list[str]
) -> None:
    few = ["--method", method, "--set", "prompts=3", "kept=1"]
    tensors = train(folder, base, method, *few)
    names = [f"diffusion_model.{name}" for name in ("context_embedder", "y_embedder.mlp.0")]
    weights = {f"{name}.diff" for name in names}
    assert weights <= set(tensors) <= weights | {f"{name}.diff_b" for name in names}
    assert all(tensors[name].any() for name in weights)
    small = train(folder, base, f"{method}-rank", *few, "rank=4")
    wide = small["transformer.context_embedder.lora_A.weight"]
    assert wide.shape == (4, CONFIG.context_in_dim)
    assert "transformer.time_text_embed.text_embedder.linear_1.lora_A.weight" in small


def test_maps_guards_and_acceptance(folder: Path, base: list[str]) -> None:
    toys.maps_guards_and_acceptance("sd3", folder, base)


def test_a_missing_encoder_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = files(folder, "sd3.5_large")
    at = argv.index("--clip-g")
    argv = ["generate", *argv[:at], *argv[at + 2 :], "--prompt", "a cat", *DRAW]
    assert main([*argv, "--out", str(folder / "no.png")]) == 1
    assert "needs its text encoders; name one with --clip-g." in capsys.readouterr().err
