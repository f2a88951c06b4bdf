"""What a command leaves behind: files that replace nothing unasked, and lines for the reader.

A line that cannot be written never costs work: standard output and error may be closed, full, or
without a reader.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

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
        When a file exists and is not to be overwritten, is a link to nowhere, or is being written
        by another process. When its name does not end in ``suffix``, or its folder cannot be
        written to.
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


class Unfailing:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            if self._stream is not None:
                self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """For the width of the terminal; OSError where there is none."""
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Standard output and error as a command wants them: no character fails, and at the end nothing
    is left that Python could fail to write when it exits."""
    _fill_closed_places()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                _silence(stream)


def _fill_closed_places() -> None:
    """Keep the numbers of closed standard streams from the files that are opened later: libraries
    would write their warnings into them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number


def _silence(stream: TextIO) -> None:
    """Send what is left in a stream nowhere."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def say(args: argparse.Namespace, result: dict[str, Any], *lines: str, only: bool = False) -> None:
    """Print ``result`` as JSON when asked to, else ``lines`` for a person.

    ``only``: what is printed is all there is, and EraseError says that it cannot be written. Else
    the work is in files, and a warning does. A reader who has left has read enough.
    """
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        plain = "utf" not in (sys.stdout.encoding or "").lower()
        text = json.dumps(result, ensure_ascii=plain) if args.json else "\n".join(lines)
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except (OSError, ValueError) as error:
        if sys.stdout is not None:
            _silence(sys.stdout)
        reason = getattr(error, "strerror", None) or str(error)
        sentence = f"Cannot write to standard output ({reason}); send it to a file or a terminal."
        if only:
            raise EraseError(sentence) from error
        warn(sentence)


def tell(line: str) -> None:
    """A line on standard output on the way."""
    _put(sys.stdout, line)


def note(line: str) -> None:
    """A line on standard error, for who is waiting."""
    _put(sys.stderr, line)


def warn(sentence: str) -> None:
    """A warning on standard error."""
    note(f"eraseanything: warning: {sentence}")


def _put(stream: TextIO | None, line: str) -> None:
    unfailing = Unfailing(stream)
    unfailing.write(printable(line) + "\n")
    unfailing.flush()


def printable(text: str, keep: str = "\n\t") -> str:
    """``text`` with what a terminal would obey written as JSON writes it: ``\\u001b``.

    Marks that reverse the order of letters are among it; the joiners of emoji and scripts are not.
    """
    joiners = "\u200c\u200d"
    return "".join(_escaped(c) if _commands(c) and c not in keep + joiners else c for c in text)


def _commands(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    if ord(character) < 0x10000:
        return f"\\u{ord(character):04x}"
    return json.dumps(character)[1:-1]


def sentence(error: BaseException) -> str:
    """What went wrong, in one sentence for a person."""
    if isinstance(error, EraseError):
        return str(error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if _out_of_memory(error):
        return (
            "There is too little memory left; try --memory with fewer gigabytes than the device "
            f"has, a smaller --batch or smaller pictures ({reason})."
        )
    if isinstance(error, OSError) and error.filename:
        return f"Cannot use {error.filename} ({error.strerror}); check the path."
    return f"Unexpected failure: {reason} (set ERASE_DEBUG=1 to see where)."


def _out_of_memory(error: BaseException) -> bool:
    """On a device, in Python or in torch's allocator for the CPU."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
