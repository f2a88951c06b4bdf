"""What a command leaves behind: files that replace nothing unasked, and lines for the reader."""

from __future__ import annotations

import argparse
import json
import os
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


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def check_out(paths: Iterable[Path], overwrite: bool, suffix: str | None = None) -> None:
    """Refuse, before any work is done, files that cannot or must not be written.

    Raises
    ------
    EraseError
        When a file exists and ``overwrite`` is False, its name does not end in ``suffix``, or its
        folder cannot be made or written to.
    """
    for path in paths:
        if suffix and path.suffix.lower() != suffix:
            raise EraseError(f"{path} must end in {suffix}; choose such a name.")
        if path.is_dir():
            raise EraseError(f"{path} is a folder; name a file in it.")
        if path.exists() and not overwrite:
            raise EraseError(f"{path} exists already; choose another name or add --overwrite.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EraseError(f"Cannot make the folder {path.parent} ({error.strerror}).") from error
        if not os.access(path.parent, os.W_OK):
            raise EraseError(f"The folder {path.parent} is read-only; choose another place.")


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    from ..files import atomic

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
