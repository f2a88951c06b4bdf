"""Tokenizers: from a local folder, a ComfyUI at COMFYUI_PATH or the hub, in that order."""

from __future__ import annotations

import io
import os
import shutil
from email.message import Message
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from transformers import AutoTokenizer

from erase_core.errors import EraseError
from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.files import Files
from erase_core.models.flux1.pipeline import CLIP, T5, Tokenizer, find_tokenizer
from erase_core.models.flux1.text import CLIP_LENGTH, tokenize
from erase_core.models.tokens import token_mask

COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
host = pytest.mark.skipif(
    not (COMFYUI / T5.host / "tokenizer.json").is_file(), reason="there is no ComfyUI"
)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were asked of the hub, which is never reached."""
    asked: list[str] = []
    load = AutoTokenizer.from_pretrained

    def offline(name: Any, **options: Any) -> Any:
        if isinstance(name, Path):
            return load(name, **options)
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", offline)
    monkeypatch.setattr("erase_core.models.flux1.pipeline.urlopen", unreachable)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return asked


def unreachable(*args: Any, **options: Any) -> Any:
    raise URLError(OSError("Name or service not known"))


def found(kind: Tokenizer, tokenizers: Path | None = None, model: str = "flux.safetensors") -> Any:
    return find_tokenizer(Files(Path(model), tokenizers=tokenizers), kind)


def in_a_host(folder: Path, kind: Tokenizer, files: Path) -> Path:
    """A ComfyUI that has nothing but one tokenizer."""
    shutil.copytree(files, folder / kind.host)
    return folder


@host
def test_flux_tokenizers_of_a_real_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(COMFYUI))
    clip, t5 = found(CLIP), found(T5)
    prompt = "a photo of a Tiger, 2 cars"
    ids = tokenize(clip, [prompt], CLIP_LENGTH)[0].tolist()
    assert ids[:11] == [49406, 320, 1125, 539, 320, 6531, 267, 273, 3346, 49407, 49407]
    assert tokenize(t5, [prompt], 14)[0].tolist() == [
        *(3, 9, 1202, 13, 3, 9, 11804, 6, 204, 2948, 1),
        *(0, 0, 0),
    ]
    assert token_mask(t5, prompt, "Tiger", 14).nonzero().flatten().tolist() == [6]


@host
def test_a_folder_as_diffusers_writes_it(tmp_path: Path) -> None:
    """CLIP's tokenizer there has a vocabulary and merges, T5's is of one piece."""
    shutil.copytree(COMFYUI / CLIP.host, tmp_path / "tokenizer")
    shutil.copytree(COMFYUI / T5.host, tmp_path / "tokenizer_2")
    for where in ({"tokenizers": tmp_path}, {"model": str(tmp_path)}):
        assert found(CLIP, **where)("tiger")["input_ids"] == [49406, 6531, 49407]
        assert found(T5, **where)("Tiger")["input_ids"] == [11804, 1]


def test_a_local_folder_comes_before_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[str]
) -> None:
    local, there = FOLDER / "clip_l_tokenizer", FOLDER / "t5xxl_tokenizer"
    monkeypatch.setenv("COMFYUI_PATH", str(in_a_host(tmp_path, CLIP, there)))
    clip, t5 = (AutoTokenizer.from_pretrained(place) for place in (local, there))
    words = "a tiger and a car"
    assert found(CLIP, FOLDER)(words)["input_ids"] == clip(words)["input_ids"]
    assert found(CLIP)(words)["input_ids"] == t5(words)["input_ids"] != clip(words)["input_ids"]
    assert not hub


def test_what_a_host_lacks_is_asked_of_the_hub_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[str]
) -> None:
    folder = in_a_host(tmp_path, CLIP, FOLDER / "clip_l_tokenizer")
    (folder / CLIP.host / "tokenizer.json").rename(folder / CLIP.host / "vocab.json")
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    with pytest.raises(EraseError, match="COMFYUI_PATH has no comfy/sd1_tokenizer/merges.txt"):
        found(CLIP)
    assert hub == [CLIP.hub]
    monkeypatch.delenv("COMFYUI_PATH")
    with pytest.raises(EraseError, match="COMFYUI_PATH names no ComfyUI; go online once"):
        found(T5)


def test_the_hub_is_asked_only_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline its library would try for most of a minute before it looks into its cache."""
    told: list[bool] = []

    def load(name: str, local_files_only: bool) -> str:
        told.append(local_files_only)
        return name

    def answering(error: Exception | None) -> Any:
        def urlopen(*args: Any, **options: Any) -> io.BytesIO:
            if error is not None:
                raise error
            return io.BytesIO()

        return urlopen

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load)
    assert found(CLIP) == CLIP.hub and told == [True]
    refused = HTTPError("", 403, "", Message(), None)
    for error in (None, refused, URLError(SSLError("unknown issuer"))):
        monkeypatch.setattr("erase_core.models.flux1.pipeline.urlopen", answering(error))
        assert found(T5) == T5.hub and told[-1] is False
    monkeypatch.setattr("erase_core.models.flux1.pipeline.urlopen", answering(TimeoutError()))
    found(T5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("erase_core.models.flux1.pipeline.urlopen", answering(None))
    found(T5)
    assert told[-2:] == [True, True]


def test_a_folder_that_was_named_must_have_it(tmp_path: Path, hub: list[str]) -> None:
    shutil.copytree(FOLDER / "t5xxl_tokenizer", tmp_path / "tokenizer_2")
    (tmp_path / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(EraseError, match="no whole tokenizer_2 or t5xxl_tokenizer in"):
        found(T5, tmp_path)
    assert not hub
