"""WordNet 3.0's database files: shipped compressed, unpacked once into the user's cache.

Synsets are found by their byte offset, so the files must lie there whole and uncompressed.
"""

from __future__ import annotations

import lzma
import os
import sys
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import EraseError
from ...writing import atomic

ARCHIVE = Path(__file__).parent / "database" / "wordnet-3.0.tar.xz"
SIZES = {  # bytes of every file that NLTK's reader opens
    "lexnames": 800,
    "cntlist.rev": 911_244,
    "index.adj": 824_127,
    "index.adv": 162_816,
    "index.noun": 4_786_655,
    "index.verb": 523_980,
    "data.adj": 3_155_427,
    "data.adv": 516_696,
    "data.noun": 15_300_280,
    "data.verb": 2_772_517,
    "adj.exc": 23_019,
    "adv.exc": 85,
    "noun.exc": 38_301,
    "verb.exc": 38_033,
}


def database() -> Path:
    """A folder with the files of SIZES, each whole.

    It is in the user's cache. Where that cannot be written, it is temporary and goes with this
    process. EraseError when that cannot be written either, or when the archive is damaged.
    """
    try:
        return unpack(_cache() / "eraseanything" / "wordnet-3.0")
    except (OSError, RuntimeError, EraseError):  # RuntimeError: there is no home
        return unpack(Path(_temporary().name))


def unpack(folder: Path) -> Path:
    """Write what ``folder`` lacks and return it.

    Each file takes its name when it is whole, so several processes may unpack at once.
    """
    if any(not _whole(folder, name) for name in SIZES):
        try:
            with tarfile.open(ARCHIVE, "r:xz") as archive:
                for member in archive:
                    _write(archive, member, folder / member.name)
        except (tarfile.TarError, lzma.LZMAError, EOFError, FileNotFoundError) as error:
            raise EraseError(
                f"{ARCHIVE} is damaged ({error}); install the package again."
            ) from error
    return folder


def _whole(folder: Path, name: str) -> bool:
    path = folder / name
    return path.is_file() and path.stat().st_size == SIZES[name]


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    if content is not None and not _whole(path.parent, path.name):
        with atomic(path) as part:
            part.write_bytes(content.read())


def _cache() -> Path:
    """Where this system keeps what programs can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    told = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return told if told.is_absolute() else Path.home() / ".cache"


@cache
def _temporary() -> TemporaryDirectory[str]:
    """One for the whole process."""
    try:
        return TemporaryDirectory(prefix="eraseanything-")
    except OSError as error:
        raise EraseError(
            f"WordNet cannot be unpacked ({error.strerror}); free some space or set TMPDIR."
        ) from error
