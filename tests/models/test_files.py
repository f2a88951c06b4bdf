"""Files are written whole or not at all, and failures name the file."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import make_model

from erase_core.errors import EraseError
from erase_core.files import read_json, sha256, write_json
from erase_core.models import files
from erase_core.tensors import read_tensors, save_tensors
from erase_core.writing import atomic


def test_atomic_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with atomic(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic(target) as temporary:
            temporary.write_text("half")
            raise error
        assert target.read_text() == "first"
        assert os.listdir(target.parent) == ["file.txt"]


def test_no_space_left_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EraseError, match=r"report\.json.*No space left on device"):
        write_json(tmp_path / "report.json", {})
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "lora.safetensors"
    save_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(EraseError, match=r"lora\.safetensors"):
            save_tensors(path, {"a": torch.ones(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["lora.safetensors"]


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EraseError, match="Cannot write"):
        write_json(tmp_path / "file" / "x.json", 1)
    with pytest.raises(EraseError, match="Cannot write"):
        write_json(tmp_path, 1)
    assert os.listdir(tmp_path) == ["file"]


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(path, tensors, {"erase.steps": "3"})
    back, metadata = read_tensors(path)
    assert metadata == {"erase.steps": "3"}
    assert back.keys() == tensors.keys()
    assert all(
        torch.equal(back[k], tensors[k]) and back[k].dtype == v.dtype for k, v in tensors.items()
    )
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_json_comes_back_and_bad_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"name": "café", "list": [1, None]})
    assert read_json(path) == {"name": "café", "list": [1, None]}
    path.write_text("{")
    with pytest.raises(EraseError, match=r"x\.json"):
        read_json(path)


@pytest.mark.parametrize("read", [read_json, read_tensors, sha256])
def test_a_missing_file_is_named(tmp_path: Path, read: object) -> None:
    with pytest.raises(EraseError, match="nowhere"):
        read(tmp_path / "nowhere")  # type: ignore[operator]


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EraseError, match=r"t\.safetensors is not a whole safetensors file"):
        read_tensors(path)


def test_sha256_over_several_pieces(tmp_path: Path) -> None:
    content = os.urandom((2 << 20) + 5)
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_base_is_hashed_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 GB take a minute: every eraser of a session has the hash, and a new file is noticed."""
    file, asked = tmp_path / "base.safetensors", list[Path]()

    def counted(path: Path) -> str:
        asked.append(path)
        return sha256(path)

    monkeypatch.setattr(files, "sha256", counted)
    for content, times in ((b"first", 1), (b"second", 2)):
        file.write_bytes(content)
        os.utime(file, ns=(times, times))
        models = [replace(make_model(), sha256="", file=file) for _ in range(3)]
        found = {files.base_hash(model) for model in models}
        assert found == {hashlib.sha256(content).hexdigest()} and len(asked) == times
