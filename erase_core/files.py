"""The one place where texts, JSON and pictures are read and written: whole or not at all.

Whatever a person's file holds, reading it ends in its content or in one sentence.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EraseError
from .writing import atomic, reason

if TYPE_CHECKING:
    from PIL import Image

TEXT_BYTES = 1 << 28  # of a text at most; COCO's largest file of captions has 92 MB


def existing(path: Path | str) -> Path:
    """``path``, if it is a file; EraseError for what is missing, a folder, a pipe or a device."""
    path = Path(path)
    try:
        if path.is_file():
            return path
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise EraseError(f"Cannot read {path} ({reason(error)}); check the path.") from error
    if not there:
        raise EraseError(f"There is no file {path}; check the path.")
    what = "a folder" if folder else "no ordinary file"
    raise EraseError(f"{path} is {what}; name a file.")


def read_text(path: Path | str) -> str:
    """A text in UTF-8, or in UTF-16 with its mark; EraseError when it is missing or anything else,
    other encodings among it, which nobody could tell apart."""
    path = existing(path)
    try:
        with open(path, "rb") as file:
            content = file.read(TEXT_BYTES + 1)
    except OSError as error:
        raise EraseError(f"Cannot read {path} ({reason(error)}); check the file.") from error
    if len(content) > TEXT_BYTES:
        raise EraseError(f"{path} is larger than {TEXT_BYTES >> 20} MiB; give a smaller file.")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise EraseError(f"{path} is no text in UTF-8; save it as UTF-8.")
    return text


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError when it is none, is nested too deep to be read, or holds
    what cannot be written again: numbers without end, halves of a character."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def read_json(path: Path | str) -> Any:
    """The content of a JSON file; EraseError when it is missing, unreadable or not JSON."""
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise EraseError(f"Cannot read {path} as JSON ({error}); check the file.") from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_picture(path: Path | str) -> Image.Image:
    """A picture in RGB, turned as its camera says; EraseError when it is missing, damaged, or has
    more pixels than Pillow holds safe."""
    from PIL import Image, ImageOps

    path = existing(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise EraseError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; make it smaller."
        ) from error
    except Exception as error:  # Pillow's readers of damaged files raise nearly everything
        raise EraseError(f"{path} cannot be read as a picture; remove or replace it.") from error


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files of the weights ``name`` in a folder of Hugging Face's: the shards in its index, or
    the one file; none where neither is there. EraseError for an index that names nothing."""
    index = folder / f"{name}.index.json"
    if index.is_file():
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        names = list(shards.values()) if isinstance(shards, dict) else []
        if not names or not all(isinstance(n, str) and n and Path(n).name == n for n in names):
            raise EraseError(f"{index} names no weight files; download the folder again.")
        return [folder / name for name in sorted(set(names))]
    return [folder / name] if (folder / name).is_file() else []


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces of 1 MiB."""
    digest, path = hashlib.sha256(), existing(path)
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise EraseError(f"Cannot read {path} ({reason(error)}); check the path.") from error
    return digest.hexdigest()
