"""Every command on a toy FLUX.2 klein with random weights, from a pipeline's folder to file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from cli import toys
from cli.toys import SHORT, draw, near
from klein import WIDTH, make_transformer, save_pipeline
from tiny import TIGER

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.models.flux1.names import file_keys
from erase_core.models.flux2.names import NAMING
from erase_core.tensors import save_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, single files of the same, and a concept set."""
    made = tmp_path_factory.mktemp("flux2")
    save_pipeline(made / "klein")
    state = file_keys(NAMING.to_bfl(make_transformer().state_dict()))
    for name in ("flux-2-klein-base-4b", "flux-2-klein-4b"):
        save_tensors(made / f"{name}.safetensors", state)
    ConceptSet((TIGER,)).save(made / "tiger.json")
    return made


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the model."""
    monkeypatch.setenv("ERASEANYTHING_CACHE", str(folder / "cache"))
    return ["--model", str(folder / "klein")]


def files(folder: Path, name: str) -> list[str]:
    """The same from single files."""
    return toys.of_files(folder / f"{name}.safetensors", folder / "klein")


train = partial(toys.train, "flux2")


def test_a_trained_eraser_changes_pictures(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["--targets", "text.q", "text.k", "single.attention", "--l-adv=1"]
    tensors = train(folder, base, "tiger", *SHORT, *targets)
    names = {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}
    assert names == {
        f"transformer.transformer_blocks.{n}.attn.{part}"
        for n in range(2)
        for part in ("add_q_proj", "add_k_proj")
    } | {f"transformer.single_transformer_blocks.{n}.attn.to_qkv_mlp_proj" for n in range(2)}
    assert "distilled" not in capsys.readouterr().err
    plain = draw(folder, base)
    assert draw(folder, base) == plain
    assert near(draw(folder, files(folder, "flux-2-klein-base-4b")), plain)
    lora = ["--lora", str(folder / "tiger.safetensors"), "--strength", "100"]
    others = [lora, ["--negative", "a red house"], ["--guidance", "1"]]
    drawn = [draw(folder, base, *more) for more in others]
    assert len({plain, *drawn}) == 4
    assert main(["inspect", str(folder / "tiger.safetensors"), *base]) == 0


def test_training_on_the_distilled_model_is_advised_against(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = files(folder, "flux-2-klein-4b")
    found = toys.rollouts_of_a_distilled_model("flux2", folder, base, argv)
    assert "train on the base model" in capsys.readouterr().err
    assert found == (1.0, 4)


@pytest.mark.parametrize("method", ["speed", "uce", "rece", "leace"])
def test_instant_erasers_edit_what_reads_the_tokens(
    method: str, folder: Path, base: list[str]
) -> None:
    few = ["--method", method, "--set", "prompts=3", "kept=1"]
    tensors = train(folder, base, method, *few)
    assert set(tensors) == {"diffusion_model.txt_in.diff"}  # no bias
    assert tensors["diffusion_model.txt_in.diff"].any()
    small = train(folder, base, f"{method}-rank", *few, "rank=4")
    name = "transformer.context_embedder.lora_A.weight"
    assert set(small) == {name, name.replace("_A", "_B")}
    assert small[name].shape == (4, 3 * WIDTH)


def test_maps_guards_and_acceptance(folder: Path, base: list[str]) -> None:
    toys.maps_guards_and_acceptance("flux2", folder, base)


def test_a_missing_encoder_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = files(folder, "flux-2-klein-base-4b")
    argv = argv[: argv.index("--qwen")]
    vae = ["--vae", str(folder / "klein" / "vae")]
    argv = ["generate", *argv, *vae, "--prompt", "a cat", "--out", str(folder / "no.png")]
    assert main(argv) == 1
    assert "needs its text encoders; name one with --qwen." in capsys.readouterr().err
