"""What a command leaves behind: files that replace nothing unasked, and lines for the reader."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError

if TYPE_CHECKING:
    from PIL import Image


def add_out(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    """``--out`` (required) and ``--overwrite``."""
    parser.add_argument("--out", type=Path, required=True, metavar=metavar, help=help)
    add_overwrite(parser)


def add_overwrite(parser: Any) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def check_out(args: argparse.Namespace, paths: Iterable[Path], suffix: str | None = None) -> None:
    """Claim files for this command; refuse, before any work is done, those that cannot or must not
    be written. ``args`` has ``overwrite``, and the stack ``held`` that frees them at the end.

    Raises
    ------
    EraseError
        When a file exists and is not to be overwritten, is a link to nowhere, is being written by
        another process, its name does not end in ``suffix``, or its folder cannot be written to.
    """
    from ..writing import claim, landing

    for path in paths:
        if suffix and path.suffix.lower() != suffix:
            raise EraseError(f"{path} must end in {suffix}; choose such a name.")
        if path.is_dir():
            raise EraseError(f"{path} is a folder; name a file in it.")
        args.held.enter_context(claim(path, args.overwrite))
        if landing(path).exists() and not args.overwrite:
            raise EraseError(f"{path} exists already; choose another name or add --overwrite.")


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    from ..writing import atomic

    with atomic(path) as temporary:
        picture.save(temporary, "PNG")


def say(args: argparse.Namespace, result: dict[str, Any], *lines: str) -> None:
    """Print ``result`` as JSON when asked to, else ``lines`` for a person."""
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print("\n".join(lines))


def warn(sentence: str) -> None:
    """A warning on standard error."""
    print(f"eraseanything: warning: {sentence}", file=sys.stderr)
