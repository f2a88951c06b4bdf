"""The command guard, and what generate and inspect make of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from erase_core.cli.main import main
from erase_core.concepts.sets import Concept, ConceptSet
from erase_core.erasers.lora import EraserLora
from erase_core.miniatures import miniflux


def picture(out: Path, *more: str) -> bytes:
    words = ["--prompt", "a tiger on a red background", "--steps", "2", "--device", "cpu"]
    assert main(["generate", *words, "--out", str(out), *more]) == 0
    return Image.open(out).tobytes()


def lora(path: Path) -> Path:
    """An eraser's file with metadata."""
    made = EraserLora.create(miniflux.load(torch.float32).slots(("text.q", "text.k")), rank=2)
    for parameter in made.parameters():
        parameter.data.fill_(0.05)
    made.save(path, {"erase.base": "MiniFlux", "note": "mine"})
    return path


@pytest.mark.parametrize("method", ["dve", "safree", "sae", "word-gate"])
def test_a_guards_file_changes_what_generate_draws(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, gate = tmp_path / "guard.json", method == "word-gate"
    more = ["--lora", str(lora(tmp_path / "lora.safetensors"))] if gate else []
    more += ["--set", "steps=20", "features=64"] if method == "sae" else []
    assert main(["guard", "tiger", "--method", method, "--out", str(guard), *more]) == 0
    assert main(["inspect", str(guard), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["guard"] == method and told["concepts"]["concepts"][0]["name"] == "tiger"
    assert told["metadata"].get("note") == ("mine" if gate else None)
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


def test_a_guard_named_like_the_eraser_leaves_the_eraser_alone(tmp_path: Path) -> None:
    """The first version wrote its copy, without metadata, over the person's own file."""
    own = lora(tmp_path / "tiger.safetensors")
    before = own.read_bytes()
    told = ["tiger", "--method", "word-gate", "--lora", str(own), "--overwrite"]
    for _ in range(2):
        assert main(["guard", *told, "--out", str(tmp_path / "tiger.json")]) == 0
        assert own.read_bytes() == before
    assert (tmp_path / "tiger.guard.safetensors").is_file()


@pytest.mark.parametrize("link", [None, Path.symlink_to, Path.hardlink_to])
def test_no_guard_is_written_over_what_it_reads(
    link: Callable[[Path, Path], None] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, words = tmp_path / "gate.guard.safetensors", tmp_path / "gate.json"
    own = lora(copy if link is None else tmp_path / "own.safetensors")
    if link is not None:
        link(copy, own)
    before = own.read_bytes()
    words.write_text(json.dumps(ConceptSet((Concept("tiger"),)).to_json()))
    told = ["--method", "word-gate", "--lora", str(own), "--out", str(words), "--overwrite"]
    assert main(["guard", "tiger", *told]) == 1
    assert f"{copy} would be written over {own}" in capsys.readouterr().err
    assert main(["guard", "--concepts", str(words), "--out", str(words), "--overwrite"]) == 1
    assert f"{words} would be written over {words}" in capsys.readouterr().err
    assert own.read_bytes() == before and "guard" not in json.loads(words.read_text())
