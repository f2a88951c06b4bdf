"""The command guard, and what generate and inspect make of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from erase_core.cli.main import main
from erase_core.erasers.lora import EraserLora
from erase_core.miniatures import miniflux


def picture(out: Path, *more: str) -> bytes:
    words = ["--prompt", "a tiger on a red background", "--steps", "2", "--device", "cpu"]
    assert main(["generate", *words, "--out", str(out), *more]) == 0
    return Image.open(out).tobytes()


@pytest.mark.parametrize("method", ["dve", "safree", "word-gate"])
def test_a_guards_file_changes_what_generate_draws(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, lora = tmp_path / "guard.json", tmp_path / "lora.safetensors"
    model = miniflux.load(torch.float32)
    made = EraserLora.create(model.slots(("text.q", "text.k")), rank=2)
    for parameter in made.parameters():
        parameter.data.fill_(0.05)
    made.save(lora)
    more = ["--lora", str(lora)] if method == "word-gate" else []
    assert main(["guard", "tiger", "--method", method, "--out", str(guard), *more]) == 0
    assert main(["inspect", str(guard), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["guard"] == method and told["concepts"]["concepts"][0]["name"] == "tiger"
    plain = picture(tmp_path / "plain.png")
    assert picture(tmp_path / "guarded.png", "--guard", str(guard)) != plain


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "Name a concept"),
        (["tiger", "--method", "wall"], "There is no guard wall"),
        (["tiger", "--method", "word-gate"], "name the eraser's file"),
        (["tiger", "--lora", "x.safetensors"], "takes no eraser"),
        (["tiger", "--set", "strenght=2"], "did you mean strength?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    told: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guard", *told, "--out", str(tmp_path / "guard.json")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "guard.json").exists()
