"""A model from files: which family they are of, or one sentence why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..errors import EraseError
from ..files import parse_json, sha256
from .base import Model, Slot

PRESETS = "erase.presets"  # in a transformer's metadata, see methods/presets.py


@dataclass(frozen=True)
class Files:
    """The files of one model.

    ``model`` is a transformer, or a pipeline's folder, which may have all the others. ``t5_length``
    counts the tokens of a prompt.
    """

    model: Path
    clip_l: Path | None = None
    t5: Path | None = None
    vae: Path | None = None
    tokenizers: Path | None = None
    t5_length: int = 256


def open_files(files: Files, device: torch.device, *, placed: bool = True) -> Model:
    """The model in some files, ready to draw.

    Without ``placed`` the transformer stays in main memory until
    :func:`erase_core.training.memory.fit` brings it to its device.

    Raises
    ------
    EraseError
        When a file is missing, damaged, or of no family that is known.
    """
    from .flux1.pipeline import open_flux1

    found = open_flux1(files, device, placed=placed)
    return replace(found, presets=read_presets(files.model))


def read_presets(path: Path) -> Mapping[str, Any]:
    """The presets that a transformer's file brings; none where it brings none."""
    from safetensors import safe_open

    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(PRESETS, "{}")
    try:
        found = parse_json(text)
        assert all(isinstance(values, dict) for values in _third_level(found))
    except (ValueError, AttributeError, AssertionError) as error:
        raise EraseError(f"The presets in {path.name} are damaged; take another file.") from error
    return found


def _third_level(found: Any) -> Iterator[Any]:
    """The values of every preset of every method, but for what they were measured on."""
    for presets in found.values():
        for preset in presets.values():
            yield from (value for name, value in preset.items() if name != "measured")


def read_linears(path: Path) -> dict[str, Slot]:
    """The Linears of a transformer's file by their names in a LoRA file."""
    from .flux1 import FAMILY
    from .flux1.load import load_flux

    return FAMILY.linears(load_flux(path)[1])


def base_hash(model: Model) -> str:
    """SHA-256 of a model's file, a minute for a big one; empty for a folder."""
    if model.sha256 or model.file is None or not model.file.is_file():
        return model.sha256
    return _hash(model.file, model.file.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _hash(file: Path, changed: int) -> str:
    return sha256(file)
