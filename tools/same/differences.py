"""What differs between two folders of files: tensors, metadata, JSON values, pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

COMPARED = (".safetensors", ".json", ".png")
LEFT_OUT = ("tradeoff.png", "cost.png")  # plots of seconds
CHECKPOINTS = "kept"
OURS = re.compile(r"\bours(?= steps=)")  # a row's name in the old tree, for "eraseanything"


def difference(old: Path, new: Path, aside: Set[str]) -> str:
    """The first thing that differs, with the largest difference of its values; "" for nothing."""
    sides = [_files(old), _files(new)]
    failed = [f"failed: {f['failed.json'].read_text()}" for f in sides if "failed.json" in f]
    if failed:
        return "; ".join(failed)
    if odd := sorted(sides[0].keys() ^ sides[1].keys()):
        return f"{odd[0]} is on one side only"
    for name, path in sides[0].items():
        a, b = _content(path, aside), _content(sides[1][name], aside)
        for key in [*a, *(key for key in b if key not in a)]:
            if key not in a or key not in b:
                return f"{name}: {key} is on one side only"
            if what := _unequal(a[key], b[key]):
                return f"{name}: {key}: {what}"
    return ""


def _files(folder: Path) -> dict[str, Path]:
    return {
        OURS.sub("eraseanything", str(path.relative_to(folder))): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in COMPARED and path.name not in LEFT_OUT and CHECKPOINTS not in path.parts
    }


def _content(path: Path, aside: Set[str]) -> dict[str, Any]:
    """What is compared in a file, by name: arrays, and all else as text."""
    if path.suffix == ".png":
        return {"pixels": np.asarray(Image.open(path))}
    if path.suffix == ".json":
        text = OURS.sub("eraseanything", path.read_text(encoding="utf-8"))
        return dict(_leaves(json.loads(text), aside))
    found: dict[str, Any] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            found[f"dtype of {name}"] = str(tensor.dtype)
            found[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        metadata = file.metadata() or {}
    return found | {name: value for name, value in metadata.items() if name not in aside}


def _leaves(value: Any, aside: Set[str], name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value in a JSON value, named by the way to it."""
    if not isinstance(value, (dict, list)) or not value:
        yield name, json.dumps(value)
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key not in aside:
            yield from _leaves(inner, aside, f"{name}.{key}".lstrip("."))


def _unequal(a: Any, b: Any) -> str:
    if isinstance(a, str) or isinstance(b, str):
        return "" if a == b else f"{a[:80]} / {b[:80]}"
    if a.shape != b.shape:
        return f"{a.shape} / {b.shape}"
    if a.tobytes() == b.tobytes():
        return ""
    return f"at most {np.abs(a.astype(float) - b.astype(float)).max():.3g} apart"
