"""Reading and writing files whole or not at all: JSON and safetensors, nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import EraseError
from .writing import atomic, reason

_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")  # in a folder


def read_json(path: Path | str) -> Any:
    """The content of a JSON file; EraseError when it is missing, unreadable or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EraseError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as error:
        raise EraseError(f"Cannot read {path} as JSON ({error}); check the file.") from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def save_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors (any device, copied to the CPU) and string metadata as safetensors.

    Equal content gives equal bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata=dict(metadata or {}))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file, which the library writes in random order, in order.

    The header keeps its length, so the tensors behind it stay where they are.
    """
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors (CPU) and the metadata of a safetensors file; EraseError when it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise EraseError(f"There is no file {path}; check the path.") from None
    except (OSError, SafetensorError) as error:
        raise EraseError(
            f"{path} is not a whole safetensors file ({error}); download or save it again."
        ) from error


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files of the weights ``name`` in a folder of Hugging Face's: the shards in its index, or
    the one file; none where neither is there. EraseError for an index that names nothing."""
    index = folder / f"{name}.index.json"
    if index.is_file():
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise EraseError(f"{index} names no weight files; download the folder again.")
        return [folder / shard for shard in sorted(set(shards.values()))]
    return [folder / name] if (folder / name).is_file() else []


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of the weights in a folder of transformers' or
    diffusers'; EraseError without any."""
    files = [path]
    if path.is_dir():
        files = weight_files(path, _WEIGHTS[0]) or weight_files(path, _WEIGHTS[1])
    if not files:
        names = " or ".join(_WEIGHTS)
        raise EraseError(f"There is no {names} in {path}; choose a file, or a folder that has one.")
    return {key: tensor for file in files for key, tensor in read_tensors(file)[0].items()}


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise EraseError(f"Cannot read {path} ({reason(error)}); check the path.") from error
    return digest.hexdigest()
