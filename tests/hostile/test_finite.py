"""NaN and infinity are refused instead of drawn black."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import erase_core.miniatures.miniflux as miniflux
from erase_core.cli.main import main
from erase_core.erasers.combine import Part, combine
from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.lora import EraserLora, change_norms
from erase_core.errors import EraseError
from erase_core.models.base import Model
from erase_core.models.flux1 import FAMILY
from erase_core.tensors import read_tensors, refuse_unfinite, save_tensors
from erase_core.training.result import BrokenError

NAME = "transformer.transformer_blocks.0.attn.add_q_proj"
DOWN, UP, ALPHA = f"{NAME}.lora_A.weight", f"{NAME}.lora_B.weight", f"{NAME}.alpha"
PAIR = {DOWN: torch.ones(2, 128), UP: torch.ones(128, 2)}
BAD = [
    PAIR | {UP: torch.full((128, 2), math.nan)},
    PAIR | {DOWN: torch.full((2, 128), -math.inf)},
    PAIR | {DOWN: torch.full((2, 128), math.nan).to(torch.float8_e4m3fn)},
    PAIR | {ALPHA: torch.tensor(math.nan)},
    PAIR | {ALPHA: torch.tensor(math.inf)},
    PAIR | {ALPHA: torch.tensor(3e38), UP: torch.full((128, 2), 3e38)},
]


@pytest.mark.parametrize("tensors", BAD)
def test_a_lora_is_refused_wherever_it_is_read(tensors: Any, tmp_path: Path) -> None:
    with pytest.raises(EraseError, match="holds NaN or infinity"):
        EraserLora.from_tensors(tensors, FAMILY.linears(tiny.CONFIG))
    with pytest.raises(EraseError, match="holds NaN or infinity"):
        change_norms(tensors)
    with pytest.raises(EraseError, match="holds NaN or infinity"):
        combine([Part(tensors, 1.0, {})])
    save_tensors(tmp_path / "a.safetensors", tensors)
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 1


def test_a_weight_edit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"diffusion_model.img_in.diff": torch.full((2, 2), math.nan)})
    with pytest.raises(EraseError, match="holds NaN or infinity"):
        WeightEdit.load(path)


def test_whole_numbers_and_fp8_pass() -> None:
    narrow = torch.ones(2).to(torch.float8_e4m3fn)
    refuse_unfinite({"a": torch.tensor([1]), "b": narrow}, "The file")


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_of_a_combination_is_a_number(weight: float) -> None:
    with pytest.raises(EraseError, match="no finite number"):
        combine([Part(PAIR, weight, {})])


@pytest.fixture(scope="module")
def model() -> Model:
    return miniflux.load()


def damaged(model: torch.nn.Module) -> Any:
    """NaN in the middle of a model's first matrix, until the context ends."""
    weight = next(p for p in model.parameters() if p.ndim == 2)

    class Damage:
        def __enter__(self) -> None:
            self.kept = weight.data.clone()
            weight.data[3, 3] = math.nan

        def __exit__(self, *_: object) -> None:
            weight.data = self.kept

    return Damage()


def test_a_transformer_with_nan_draws_nothing(model: Model) -> None:
    with damaged(model.tree), pytest.raises(EraseError, match="draws NaN"):
        model.generate(["a cat"], [0], steps=1)


def test_a_transformer_with_nan_is_not_trained_on() -> None:
    tree = tiny.make_tree()
    with damaged(tree), pytest.raises(BrokenError, match="draws NaN") as caught:
        tiny.run(tree=tree)
    assert isinstance(caught.value.cause, EraseError)


def test_a_vae_with_nan_draws_nothing(model: Model) -> None:
    latents = torch.full((1, 16, 16, 16), math.nan)
    with pytest.raises(EraseError, match="autoencoder draws NaN"):
        model.decode(latents)


def test_an_encoder_with_nan_says_which_one_it_is(model: Model) -> None:
    for encoder, name in ((model.text.t5, "T5"), (model.text.clip, "CLIP")):
        norm = next(p for n, p in reversed(list(encoder.named_parameters())) if p.ndim == 1)
        kept = norm.data.clone()
        norm.data[0] = math.nan
        with pytest.raises(EraseError, match=f"The {name} encoder gives NaN"):
            model.text.encode(["a cat"])
        norm.data = kept


def test_a_damaged_file_is_no_black_picture(tmp_path: Path) -> None:
    tensors, _ = read_tensors(miniflux.FOLDER / "transformer.safetensors")
    tensors["img_in.weight"] = torch.full_like(tensors["img_in.weight"], math.nan)
    path, out = tmp_path / "nan.safetensors", tmp_path / "a.png"
    save_tensors(path, tensors)
    argv = ["generate", "--prompt", "a cat", "--steps", "1", "--size", "64x64", "--out", str(out)]
    own = {
        "--clip-l": "clip_l.safetensors",
        "--t5": "t5xxl.safetensors",
        "--vae": "vae.safetensors",
    }
    more = [x for flag, name in own.items() for x in (flag, str(miniflux.FOLDER / name))]
    argv += ["--model", str(path), "--tokenizers", str(miniflux.FOLDER), "--t5-length", "64"]
    assert main([*argv, *more]) == 1
    assert not out.exists()


@pytest.mark.parametrize("strength", ["nan", "inf", "-inf", "1e400", "101"])
def test_a_strength_is_a_number(strength: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["generate", "--prompt", "a", "--out", "a.png", f"--strength={strength}"])
    assert left.value.code == 2
    assert "is no number from -100 to 100" in capsys.readouterr().err
