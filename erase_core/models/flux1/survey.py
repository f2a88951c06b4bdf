"""What is in a transformer's file, key by key, for a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import FluxConfig
from .load import key_problems, read_flux
from .names import skeleton

SHOWN = 20  # keys of each problem


def survey(path: Path) -> dict[str, Any]:
    """Sizes, dtypes and every key that is missing, unknown or of another shape (JSON-ready).

    Raises
    ------
    EraseError
        When the file cannot be read at all, or is none of a Flux transformer.
    """
    state, scales = read_flux(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    config = FluxConfig.from_shapes(shapes)
    problems = key_problems(skeleton(config), state)
    return {
        **contents(state),
        "scaled_fp8_modules": len(scales),
        "config": asdict(config),
        "problems": {
            what: {"tensors": len(keys), "first": [_shown(key, shapes) for key in keys[:SHOWN]]}
            for what, keys in problems.items()
            if keys
        },
    }


def contents(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """How many tensors there are, their bytes, and of each dtype how many."""
    return {
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "dtypes": dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
    }


def sentence(found: Mapping[str, Any]) -> str:
    """The survey in one line."""
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in found["dtypes"].items())
    problems = [f"{what} {p['tensors']}" for what, p in found["problems"].items()]
    config = found["config"]
    blocks = f"{config['depth']} + {config['depth_single_blocks']} blocks"
    wrong = "; ".join(problems) or "every key and shape as expected"
    return (
        f"{found['tensors']} tensors ({dtypes}), {config['hidden_size']} wide, {blocks}, "
        f"{'with' if config['guidance_embed'] else 'without'} guidance: {wrong}"
    )


def _shown(key: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return f"{key} {list(shapes[key])}" if key in shapes else key
