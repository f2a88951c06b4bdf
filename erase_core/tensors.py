"""Weights as safetensors: read and written whole or not at all. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import EraseError
from .files import existing, weight_files
from .writing import atomic

_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")  # in a folder


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
    """All tensors (CPU, mapped) and the metadata of a safetensors file; EraseError when it is not
    one. Whether their numbers are numbers: :func:`refuse_unfinite`."""
    path = existing(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise EraseError(
            f"{path} is not a whole safetensors file ({error}); download or save it again."
        ) from error


def read_metadata(path: Path | str) -> dict[str, str]:
    """The metadata of a safetensors file alone; none where it has none, or is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError, RuntimeError, AttributeError, KeyError):
        return {}


def refuse_unfinite(tensors: Mapping[str, Tensor], origin: str) -> None:
    """EraseError, naming ``origin``, for a tensor with NaN or infinity in it. Reads all of them."""
    for name, tensor in tensors.items():
        wide = tensor.float() if tensor.itemsize == 1 else tensor  # fp8 cannot be asked
        if not wide.isfinite().all():
            raise EraseError(
                f"{origin} is damaged: {name} holds NaN or infinity; download or make it again."
            )


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of the weights in a folder of transformers' or
    diffusers'; EraseError without any."""
    files = [path]
    if os.path.isdir(path):  # which, unlike is_dir, takes any name
        files = weight_files(path, _WEIGHTS[0]) or weight_files(path, _WEIGHTS[1])
    if not files:
        names = " or ".join(_WEIGHTS)
        raise EraseError(f"There is no {names} in {path}; choose a file, or a folder that has one.")
    return {key: tensor for file in files for key, tensor in read_tensors(file)[0].items()}
