"""Every command on a toy Qwen-Image with random weights, from a pipeline's folder to file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from cli import toys
from cli.toys import SHORT, draw, near
from qwen import CONFIG, WIDTH, make_transformer, save_pipeline
from tiny import TIGER

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.tensors import read_tensors, save_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, single files of the same, and a concept set."""
    made = tmp_path_factory.mktemp("q")
    save_pipeline(made / "qwen")
    for name in ("qwen_image_bf16", "qwen_image_distill_full"):
        save_tensors(made / f"{name}.safetensors", make_transformer().state_dict())
    ConceptSet((TIGER,)).save(made / "tiger.json")
    return made


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the model."""
    monkeypatch.setenv("ERASEANYTHING_CACHE", str(folder / "cache"))
    return ["--model", str(folder / "qwen")]


def files(folder: Path, name: str) -> list[str]:
    """The same from single files."""
    return toys.of_files(folder / f"{name}.safetensors", folder / "qwen")


train = partial(toys.train, "qwen_image")


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
    assert near(draw(folder, files(folder, "qwen_image_bf16")), plain)
    lora = ["--lora", str(folder / "tiger.safetensors"), "--strength", "100"]
    others = [lora, ["--negative", "a red house"], ["--guidance", "1"]]
    drawn = [draw(folder, base, *more) for more in others]
    assert len({plain, *drawn}) == 4
    assert main(["inspect", str(folder / "tiger.safetensors"), *base]) == 0


def test_every_role_and_loss_trains(folder: Path, base: list[str]) -> None:
    """With all four losses and the adversaries."""
    roles = ["text.q", "text.v", "text.out", "text.mlp_out", "image.attention", "text_in"]
    more = ["--targets", *roles, "--l-adv", "1", "--l-rsc", "0.1"]
    tensors = train(folder, base, "roles", *SHORT, *more)
    names = {key.split(".lora_")[0].removeprefix("transformer.") for key in tensors}
    assert {"txt_in", "transformer_blocks.0.txt_mlp.net.2"} <= names
    assert "transformer_blocks.1.attn.to_out.0" in names
    _, metadata = read_tensors(folder / "roles.safetensors")
    assert metadata["erase.settings"].count("l_adv")


def test_training_on_a_distilled_model_is_advised_against(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = files(folder, "qwen_image_distill_full")
    found = toys.rollouts_of_a_distilled_model("qwen_image", folder, base, argv)
    assert "train on the base model" in capsys.readouterr().err
    assert found == (1.0, 8)


@pytest.mark.parametrize("method", ["speed", "uce", "rece", "leace"])
def test_instant_erasers_edit_what_reads_the_tokens(
    method: str, folder: Path, base: list[str]
) -> None:
    few = ["--method", method, "--set", "prompts=3", "kept=1"]
    tensors = train(folder, base, method, *few)
    name = "diffusion_model.txt_in"
    assert {f"{name}.diff"} <= set(tensors) <= {f"{name}.diff", f"{name}.diff_b"}
    assert tensors[f"{name}.diff"].any()
    small = train(folder, base, f"{method}-rank", *few, "rank=4")
    assert small["transformer.txt_in.lora_A.weight"].shape == (4, WIDTH)


def test_maps_guards_and_acceptance(folder: Path, base: list[str]) -> None:
    toys.maps_guards_and_acceptance("qwen_image", folder, base)
