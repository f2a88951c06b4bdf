"""``eraseanything inspect``: what is in an eraser's file."""

from __future__ import annotations

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .models import MINIFLUX, bundled_file
from .output import printable, say, warn

if TYPE_CHECKING:
    from torch import Tensor

HELP = "show what is in an eraser's file"
DESCRIPTION = """\
Show the metadata, the shapes and the size of the change in every block, of a LoRA or of an edit of
whole weights. With --model, warn when the file was made for another base."""
EXAMPLES = """\
examples:
  eraseanything inspect tiger.safetensors
  eraseanything inspect tiger.safetensors --model flux1-dev.safetensors"""
BAR = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a LoRA, a weight edit, or a guard's JSON")
    parser.add_argument(
        "--model", metavar="miniflux|FILE", help="the base model it is to be used with"
    )


def run(args: argparse.Namespace) -> int:
    from ..erasers.load import change_sizes
    from ..tensors import read_tensors

    if args.file.suffix.lower() == ".json":
        return _guard(args)
    tensors, metadata = read_tensors(args.file)
    change = by_block(change_sizes(tensors, str(args.file)))
    if not change:
        raise EraseError(f"{args.file} holds no eraser; choose a file that train or demo wrote.")
    about = {key: _plain(value) for key, value in sorted(metadata.items())}
    warning = base_warning(args.file, tensors, metadata, args.model) if args.model else ""
    if warning:
        warn(warning)
    result = {
        "file": str(args.file),
        "tensors": len(tensors),
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "change": {block: round(size, 6) for block, size in change.items()},
        "metadata": about,
        "warning": warning or None,
    }
    say(args, result, *_lines(args.file, tensors, change, metadata), only=True)
    return 0


def _guard(args: argparse.Namespace) -> int:
    """What is in a guard's file."""
    from ..erasers.guards.base import Guard

    guard = Guard.load(args.file)
    told = {"method": guard.method.label, "paper": guard.method.paper}
    told |= {"concept": ", ".join(c.name for c in guard.concepts.concepts)}
    lines = (f"  {_short(name):<12} {_short(str(value))}" for name, value in told.items())
    settings = (f"  {name:<12} {_short(str(v))}" for name, v in guard.settings.to_dict().items())
    eraser = {key: _plain(value) for key, value in sorted(guard.metadata.items())}
    result = {"file": str(args.file), "tensors": len(guard.tensors), "metadata": eraser}
    result |= guard.to_json()
    say(args, result, f"{args.file}: a guard", "", *lines, "", "settings", *settings, only=True)
    return 0


def by_block(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms of single matrices joined block by block: the root of squares.

    Blocks are named as in the file: diffusers' names in a LoRA, BFL's in a weight edit.
    """
    squares: dict[str, float] = defaultdict(float)
    for name, norm in norms.items():
        block = re.match(r"((single_)?transformer|double|single)_blocks\.\d+", name)
        squares[block[0] if block else name] += norm**2
    return {block: math.sqrt(square) for block, square in squares.items()}


def base_warning(
    file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], model: str
) -> str:
    """A sentence when the file was made for another base than ``model``, else nothing."""
    from ..erasers.load import from_tensors
    from ..files import sha256
    from ..models.files import read_linears

    path = bundled_file() if model == MINIFLUX else Path(model)
    try:
        from_tensors(tensors, read_linears(path), str(file))
    except EraseError as error:
        return str(error)
    made_for, wanted = metadata.get("erase.base", ""), metadata.get("erase.base_sha256", "")
    if not wanted:
        return "The file does not say which base it was made for."
    if (sha256(path) if path.is_file() else "") != wanted:
        return f"{file} was made for another base ({made_for}) than {model}; expect less of it."
    return ""


def _plain(value: str) -> Any:
    """Metadata as JSON where it is JSON."""
    from ..files import parse_json

    try:
        return parse_json(value)
    except ValueError:
        return value


def _lines(
    file: Path,
    tensors: Mapping[str, Tensor],
    change: Mapping[str, float],
    metadata: Mapping[str, str],
) -> list[str]:
    shapes: dict[tuple[str, tuple[int, ...], str], int] = defaultdict(int)
    for name, tensor in tensors.items():
        kind = re.sub(r"\.\d+\.", ".N.", re.sub(r"^(transformer|diffusion_model)\.", "", name))
        shapes[kind, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")] += 1
    most = max(change.values()) or 1.0
    return [
        f"{file}: {len(tensors)} tensors",
        "",
        *(
            f"  {count:>3} x {_short(kind)}  {list(shape)} {dtype}"
            for (kind, shape, dtype), count in shapes.items()
        ),
        "",
        "size of the change (Frobenius norm)",
        *(
            f"  {_short(block):<32} {size:9.4g}  {'#' * round(BAR * size / most)}"
            for block, size in change.items()
        ),
        "",
        "metadata" if metadata else "no metadata",
        *(f"  {_short(key):<24} {_short(value)}" for key, value in sorted(metadata.items())),
    ]


def _short(value: str) -> str:
    """On one line that a terminal only shows."""
    return printable(value if len(value) <= 160 else value[:157] + "...", keep="")
