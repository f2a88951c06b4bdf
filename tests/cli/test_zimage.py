"""Every command on a toy Z-Image with random weights, from a pipeline's folder to file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from cli import toys
from cli.toys import SHORT, draw, near
from klein import WIDTH
from tiny import TIGER
from z_image import make_transformer, save_pipeline

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.models.zimage.names import from_diffusers
from erase_core.tensors import save_tensors

TEXT = [f"attention.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")]
TEXT += [f"feed_forward.w{part}" for part in (1, 2, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder, single files of the same, and a concept set."""
    made = tmp_path_factory.mktemp("zimage")
    save_pipeline(made / "z")
    state = from_diffusers(make_transformer().state_dict())
    for name in ("z_image_bf16", "z_image_turbo_bf16"):
        save_tensors(made / f"{name}.safetensors", state)
    ConceptSet((TIGER,)).save(made / "tiger.json")
    return made


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the model."""
    monkeypatch.setenv("ERASEANYTHING_CACHE", str(folder / "cache"))
    return ["--model", str(folder / "z")]


def files(folder: Path, name: str) -> list[str]:
    """The same from single files."""
    return toys.of_files(folder / f"{name}.safetensors", folder / "z")


train = partial(toys.train, "zimage")


def test_a_trained_eraser_changes_pictures(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By default what reads the text alone."""
    tensors = train(folder, base, "tiger", *SHORT)
    names = {key.removesuffix(".lora_A.weight").removesuffix(".lora_B.weight") for key in tensors}
    wanted = {f"transformer.context_refiner.0.{part}" for part in TEXT}
    assert names == wanted | {"transformer.cap_embedder.1"}
    assert "distilled" not in capsys.readouterr().err
    plain = draw(folder, base)
    assert draw(folder, base) == plain
    assert near(draw(folder, files(folder, "z_image_bf16")), plain)
    lora = ["--lora", str(folder / "tiger.safetensors"), "--strength", "100"]
    others = [lora, ["--negative", "a red house"], ["--guidance", "1"]]
    drawn = [draw(folder, base, *more) for more in others]
    assert len({plain, *drawn}) == 4
    assert main(["inspect", str(folder / "tiger.safetensors"), *base]) == 0


def test_training_on_the_turbo_model_is_advised_against(
    folder: Path, base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = files(folder, "z_image_turbo_bf16")
    found = toys.rollouts_of_a_distilled_model("zimage", folder, base, argv)
    assert "train on the base model" in capsys.readouterr().err
    assert found == (1.0, 8)


@pytest.mark.parametrize("method", ["uce", "leace"])
def test_instant_erasers_edit_what_reads_the_tokens(
    method: str, folder: Path, base: list[str]
) -> None:
    few = ["--method", method, "--set", "prompts=3", "kept=1"]
    tensors = train(folder, base, method, *few)
    name = "diffusion_model.cap_embedder.1"
    assert {f"{name}.diff"} <= set(tensors) <= {f"{name}.diff", f"{name}.diff_b"}
    assert tensors[f"{name}.diff"].any()
    small = train(folder, base, f"{method}-rank", *few, "rank=4")
    assert small["transformer.cap_embedder.1.lora_A.weight"].shape == (4, WIDTH)


def test_maps_guards_and_acceptance(folder: Path, base: list[str]) -> None:
    toys.maps_guards_and_acceptance("zimage", folder, base)
