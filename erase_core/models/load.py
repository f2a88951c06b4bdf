"""A transformer from safetensors, whatever its family.

Files are memory-mapped and their tensors assigned to a tree without storage, so that memory never
holds more than the weights. Nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EraseError
from ..files import existing, weight_files
from ..tensors import read_tensors
from .base import Sizes
from .family import Family, State, advice
from .frozen import like, put

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PREFIXES = ("model.diffusion_model.", "diffusion_model.")

# First bytes of files that are not safetensors.
_MAGIC = {
    b"GGUF": "a GGUF file, whose quantised weights cannot be trained on",
    b"PK\x03\x04": "a PyTorch pickle, which could run any program",
    b"\x80": "a PyTorch pickle, which could run any program",
}


def load(
    family: Family,
    path: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[Any, Any]:
    """Load a transformer of a family, without gradients: its tree and its sizes.

    Parameters
    ----------
    path
        A file with bare keys, a full checkpoint (``model.diffusion_model.``), or a diffusers folder
        (its ``transformer`` folder included), sharded or not.
    device
        Where the weights go. On the CPU and with an unchanged dtype they stay mapped to the file.
    dtype
        Cast all weights. None keeps the file's: fp8 matrices, scaled or not, stay fp8 and are
        widened at every use; norms and biases become bfloat16.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised, or another model than a text-to-image one.
    """
    path = Path(path)
    state, scales = family.read(path, dtype)
    config = sizes(family, path, state)
    tree = family.skeleton(config).requires_grad_(False)
    found = [
        f"{what} {len(keys)} tensors ({keys[0]})"
        for what, keys in key_problems(family, config, state).items()
        if keys
    ]
    if found:
        raise EraseError(f"{path.name} {' and '.join(found)}; {advice()}.")
    state = _cast(state, torch.device(device), dtype)
    _widen_at_use(tree, state, scales)
    tree.load_state_dict(state, assign=True)
    return tree, config


def sizes(family: Family, path: Path, state: Mapping[str, Tensor]) -> Sizes:
    """The sizes of a transformer whose tensors have the tree's names; EraseError, naming the file,
    when it is none of the family."""
    try:
        return family.sizes({key: tuple(value.shape) for key, value in state.items()})
    except EraseError as error:
        raise EraseError(f"{path.name}: {error}") from error


def key_problems(family: Family, config: Any, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Keys that a state lacks, has too many, or has in the wrong shape, compared one by one."""
    expected = family.skeleton(config).state_dict()
    return {
        "lacks": [key for key in expected if key not in state],
        f"has beyond {family.label}'s": [key for key in state if key not in expected],
        "has in the wrong shape": [
            key for key in expected if key in state and state[key].shape != expected[key].shape
        ],
    }


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """The transformer's tensors under bare keys, mapped, and the metadata of a file or of a
    folder's shards; EraseError when it is missing, damaged or not in safetensors format."""
    state: State = {}
    metadata: dict[str, str] = {}
    for file in _shards(path) if os.path.isdir(path) else [path]:
        _refuse_magic(file)
        tensors, about = read_tensors(file)
        state |= tensors
        metadata |= about
    return _strip_prefix(state), metadata


def _shards(folder: Path) -> list[Path]:
    """The weight files of a diffusers folder."""
    for place in (folder, folder / "transformer"):
        if files := weight_files(place, _WEIGHTS):
            return files
    raise EraseError(f"There is no {_WEIGHTS} in {folder}; {advice()} or its diffusers folder.")


def _refuse_magic(path: Path) -> None:
    try:
        with open(existing(path), "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise EraseError(f"Cannot read {path} ({error.strerror}); check the path.") from error
    for magic, what in _MAGIC.items():
        # A safetensors file may begin so by chance: its length comes first, its JSON at byte 8.
        if start.startswith(magic) and start[8:] != b"{":
            raise EraseError(f"{path.name} is {what}; {advice()}.")


def _strip_prefix(state: State) -> State:
    """The transformer's part of a full checkpoint, under bare keys."""
    for prefix in _PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner
    return state


def _cast(state: State, device: torch.device, dtype: torch.dtype | None) -> State:
    """Move and cast one tensor after another; fp8 matrices keep their dtype unless one is given.

    All else is float32 where nothing is narrower, and bfloat16 otherwise. Float16 becomes bfloat16:
    residuals are beyond its range, and losses' gradients below it.
    """
    found = {tensor.dtype for tensor in state.values() if tensor.itemsize > 1}
    working = dtype or (torch.float32 if found == {torch.float32} else torch.bfloat16)
    cast = {}
    for key in list(state):
        tensor = state.pop(key)
        keep = dtype is None and tensor.dtype.itemsize == 1 and tensor.ndim == 2
        cast[key] = tensor.to(device=device, dtype=tensor.dtype if keep else working)
    return cast


def _widen_at_use(tree: nn.Module, state: State, scales: Mapping[str, float]) -> None:
    """Put a FrozenLinear, still without storage, wherever the weight is fp8."""
    for name, module in list(tree.named_modules()):
        if isinstance(module, nn.Linear) and state[f"{name}.weight"].dtype.itemsize == 1:
            cast = like(module)
            cast.scale = scales.get(name, 1.0)
            put(tree, name, cast)
