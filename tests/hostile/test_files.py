"""Whatever a person's file holds, reading it ends in its content or in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from erase_core.cli.keep import read_keep_pictures
from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.combine import Part, combine, combined_metadata
from erase_core.erasers.lora import EraserLora, change_norms
from erase_core.errors import EraseError
from erase_core.files import read_json, read_picture, read_text, sha256
from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.files import read_linears
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.autoencoder import Autoencoder
from erase_core.models.flux1.text import load_clip, load_t5
from erase_core.models.tokens import read_tokenizer
from erase_core.tensors import read_tensors, read_weights, save_tensors

NAME = "transformer.transformer_blocks.0.attn.add_q_proj"
DOWN, UP, ALPHA = f"{NAME}.lora_A.weight", f"{NAME}.lora_B.weight", f"{NAME}.alpha"
PAIR = {DOWN: torch.ones(2, 128), UP: torch.ones(128, 2)}
LORAS = {
    "A without B": {DOWN: PAIR[DOWN]},
    "B without A": {UP: PAIR[UP]},
    "alpha alone": {ALPHA: torch.ones(1)},
    "rank 0": {DOWN: torch.ones(0, 128), UP: torch.ones(128, 0)},
    "two ranks": PAIR | {UP: torch.ones(128, 3)},
    "a scalar": PAIR | {DOWN: torch.tensor(1.0)},
    "a vector": PAIR | {UP: torch.ones(128)},
    "convolutions": {DOWN: torch.ones(2, 128, 1, 1), UP: torch.ones(128, 2, 1, 1)},
    "integers": {name: tensor.long() for name, tensor in PAIR.items()},
    "several alphas": PAIR | {ALPHA: torch.ones(2)},
    "no alpha": PAIR | {ALPHA: torch.ones(0)},
    "a name twice": PAIR | {DOWN.removeprefix("transformer."): torch.ones(2, 128)},
    "other names": {"lora_unet_x.lora_up.weight": torch.ones(2, 2)},
}


@pytest.mark.parametrize("tensors", LORAS.values(), ids=LORAS)
def test_a_malformed_lora_is_one_sentence(
    tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for read in (
        lambda: EraserLora.from_tensors(tensors, FAMILY.linears(tiny.CONFIG)),
        lambda: change_norms(tensors),
        lambda: combine([Part(tensors, 1.0, {})]),
    ):
        with pytest.raises(EraseError):
            read()
    save_tensors(tmp_path / "a.safetensors", tensors)
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.safetensors" in line and "Unexpected" not in line


def test_loras_of_two_sizes_are_not_combined() -> None:
    wide = {DOWN: torch.ones(2, 256), UP: torch.ones(256, 2)}
    with pytest.raises(EraseError, match="bases of different sizes"):
        combine([Part(PAIR, 1.0, {}), Part(wide, 1.0, {})])


@pytest.mark.parametrize("told", ["[" * 100_000, "5", '{"concepts": [{"name": 5}]}', "{"])
def test_foreign_metadata_combines(told: str) -> None:
    combined_metadata([Part(PAIR, 1.0, {"erase.concepts": told})], "cat", PAIR)


@pytest.mark.parametrize(
    "read", [read_text, read_json, read_tensors, read_picture, sha256, read_linears]
)
def test_no_file_is_one_sentence(read: Callable[[Path], Any], tmp_path: Path) -> None:
    places = [tmp_path, tmp_path / "none", tmp_path / ("x" * 300), Path("a\0b")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
    for place in places:
        with pytest.raises(
            EraseError, match="no file|a folder|no ordinary file|Cannot read|There is no"
        ):
            read(place)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        "é".encode("latin-1"),
        b"[" * 100_000,
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b"{}{}",
        b"9" * 10_000,
        "[1]".encode("utf-16-le"),
    ],
)
def test_what_is_no_json_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(EraseError, match=r"a\.json"):
        read_json(path)
    with pytest.raises(EraseError, match=r"a\.json"):
        ConceptSet.load(path)


def header(value: Any, data: bytes = b"") -> bytes:
    """A safetensors file, whatever its header says."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        struct.pack("<Q", 2**63),
        header(b"[" * 10_000),
        header([]),
        header({"a": 5}),
        header({"a": ENTRY}),
        header({"a": ENTRY | {"shape": [-2]}}, b"\0" * 8),
        header({"a": ENTRY | {"shape": [2**62, 2**62]}}, b"\0" * 8),
        header({"a": ENTRY | {"dtype": "X9"}}, b"\0" * 8),
        header({"a": ENTRY | {"data_offsets": [8, 0]}}, b"\0" * 8),
        header({"a": ENTRY, "b": ENTRY}, b"\0" * 8),
    ],
)
def test_what_is_no_safetensors_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(EraseError, match=r"a\.safetensors"):
        read_tensors(path)


@pytest.mark.parametrize("shard", ["../a", "/etc/a", 5, None, "", "a\0", ["a"]])
def test_an_index_names_files_beside_it(shard: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard, "b": "b.safetensors"}}))
    with pytest.raises(EraseError, match="names no weight files|no file"):
        read_weights(tmp_path)


MODELS: dict[str, Callable[[Path], Any]] = {
    "transformer": read_linears,
    "t5xxl": load_t5,
    "clip_l": lambda path: load_clip(path, read_tokenizer(FOLDER / "clip_l_tokenizer")),
    "autoencoder": Autoencoder.load,
}
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "scalar": lambda tensor: torch.ones(()),
    "vector": lambda tensor: tensor.flatten()[:3],
    "empty": lambda tensor: torch.ones(0, 0),
    "narrow": lambda tensor: tensor[:1],
    "whole numbers": lambda tensor: tensor.long(),
}


def autoencoder() -> dict[str, Tensor]:
    """The first names of Flux's autoencoder, and no more."""
    return {
        "decoder.conv_in.weight": torch.ones(32, 16, 3, 3),
        "decoder.mid.attn_1.q.weight": torch.ones(32, 32, 1, 1),
        "decoder.mid_block.x": torch.ones(2, 2),
    }


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_other_shapes_is_one_sentence(
    kind: str, shape: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    whole = (
        autoencoder() if kind == "autoencoder" else read_tensors(FOLDER / f"{kind}.safetensors")[0]
    )
    for keep in (slice(0, None), slice(0, 40)):
        names = list(whole)[keep]
        save_tensors(path, {name: shape(whole[name]) for name in names})
        with pytest.raises(EraseError):
            MODELS[kind](path)


def test_a_block_number_of_nine_digits_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    names = ("x_embedder.weight", "transformer_blocks.999999999.attn.to_q.weight")
    save_tensors(path, {name: torch.ones(128, 64) for name in names})
    with pytest.raises(EraseError, match="no transformer that is known"):
        read_linears(path)


def break_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def break_model(folder: Path) -> None:
    told = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(told | {"model": {"type": "Unheard"}}))


def break_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": 5, "pad_token": []}')


def ask_for_code(folder: Path) -> None:
    told = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "evil.py").write_text("raise SystemExit('code of the folder ran')")


@pytest.mark.parametrize("damage", [break_json, break_model, break_config, ask_for_code])
def test_a_broken_tokenizer_is_one_sentence(damage: Callable[[Path], None], tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER / "t5xxl_tokenizer", tmp_path / "tokenizer")
    damage(folder)
    with pytest.raises(EraseError, match="The tokenizer in"):
        read_tokenizer(folder)


def test_a_tokenizer_of_another_encoder_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(FOLDER / "clip_l_tokenizer", tmp_path / name)
    own = {"--clip-l": "clip_l", "--t5": "t5xxl", "--vae": "vae", "--model": "transformer"}
    argv = [x for flag, name in own.items() for x in (flag, str(FOLDER / f"{name}.safetensors"))]
    argv += ["--prompt", "a", "--out", str(tmp_path / "a.png"), "--tokenizers", str(tmp_path)]
    assert main(["generate", *argv]) == 1
    assert "more words than the encoder" in capsys.readouterr().err


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bomb(60_000, 60_000), "more than"),
        (bomb(10_000, 10_000), "more than"),
        (bomb(10, 10)[:-30], "cannot be read"),
        (bomb(0, 10), "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "cannot be read"),
        (b"GIF89a" + b"\0" * 3, "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_a_picture_that_is_none_is_one_sentence(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(EraseError, match=says):
        read_picture(path)


class Mirror:
    """Stands for an autoencoder: latents of the pictures' size."""

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_are_read_as_they_are_marked(encoding: str, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("a café\n".encode(encoding))
    read: Any = read_keep_pictures(tmp_path, Mirror(), (16, 16))  # type: ignore[arg-type]
    assert read.prompts == ("a café",)


def test_a_caption_in_latin_1_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("a café".encode("latin-1"))
    with pytest.raises(EraseError, match=r"a\.txt is no text in UTF-8"):
        read_keep_pictures(tmp_path, Mirror(), (16, 16))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cell",
    ["[]", "{}", '{"method": 5}', '{"method": "ours"}', '{"method": "ours", "kind": "entity"}'],
)
def test_a_foreign_cell_of_a_benchmark_is_one_sentence(
    cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(cell)
    assert main(["bench", "--report", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "remove it" in line and str(tmp_path) in line
