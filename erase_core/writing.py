"""Files written whole, by one process at a time, over nothing that the person did not mean.

:func:`claim` holds a path from the first check to the last write. :func:`atomic` writes it: a
temporary file beside it, flushed to the disk, takes its name at the end.
"""

from __future__ import annotations

import errno
import glob
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import EraseError

_NOT_THERE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_new: set[Path] = set()  # claimed, must not exist before we write them


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file path beside ``path``; it takes that name on success, else it goes.

    A reader therefore sees the old file or the whole new one, never a part, also after a power
    cut. A link stays, and the file that it leads to is written. Missing parent folders are made.

    Raises
    ------
    EraseError
        Naming ``path``: when the file system refuses (full, read-only, ...), when it is a link to
        nowhere, or when it was claimed as new and somebody else has written it meanwhile. In the
        last case the work is kept under another name, which the sentence tells.
    """
    target = landing(Path(path))
    temporary = _beside(target, f"-{uuid4().hex[:8]}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors would leave the file readable by its owner alone
        _flush(temporary)
        _take_name(temporary, target)
    except (OSError, SafetensorError) as error:
        raise EraseError(
            f"Cannot write {path} ({reason(error)}); free some space or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def claim(path: Path, overwrite: bool = False) -> Iterator[None]:
    """Hold the file ``path`` for this process until the end; what a killed one left of it goes.

    Without ``overwrite`` whatever appears there in the meantime is not replaced by
    :func:`atomic`. Missing parent folders are made.

    Raises
    ------
    EraseError
        When another process holds it, or nothing can be written there.
    """
    target = landing(path)
    with locked(_beside(target, ".lock"), path):
        for left in target.parent.glob(glob.escape(_beside(target, "").name) + "-*.tmp*"):
            left.unlink(missing_ok=True)
        if not overwrite:
            _new.add(target.absolute())
        try:
            yield
        finally:
            _new.discard(target.absolute())


@contextmanager
def locked(file: Path, what: Path) -> Iterator[None]:
    """Hold the lock ``file``, which speaks for ``what``; it is gone at the end.

    The operating system frees the lock of a process that died. Where the file system knows no
    locks, there is none. EraseError when another process holds it or it cannot be made.
    """
    lock = FileLock(str(file), timeout=0, thread_local=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(
            dir=file.parent
        ).close()  # a lock that cannot be made may look like a held one
        lock.acquire()
    except Timeout:
        raise EraseError(
            f"Another run is writing to {what}; wait for its end or choose another place."
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter where there are no locks
        if isinstance(error, OSError) and error.errno not in _NOT_THERE:
            raise EraseError(
                f"Cannot write {what} ({reason(error)}); choose another place."
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps it until it is released, and removes it then
            file.unlink()
        lock.release()


def landing(path: Path) -> Path:
    """``path``, or the file that it leads to as a link; EraseError when that is nowhere."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # the latter for a loop, until Python 3.13
        raise EraseError(
            f"{path} is a link that leads nowhere; remove it or choose another name."
        ) from None


def free_name(path: Path) -> Path:
    """``path``, or the first of ``name-2``, ``name-3``, ... that does not exist yet."""
    number, free = 2, path
    while os.path.lexists(free):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def flush_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk; Windows does so by itself and opens no folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def reason(error: Exception) -> str:
    """The operating system's words for ``error``, without the temporary file's name."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error)


def _take_name(temporary: Path, target: Path) -> None:
    """Rename ``temporary``, after a last look at what is there."""
    taken = target.absolute() in _new and os.path.lexists(target)
    name = free_name(target) if taken else target
    os.replace(temporary, name)
    flush_folder(name.parent)
    if taken:
        raise EraseError(f"{target} was written by somebody else meanwhile; yours is in {name}.")
    _new.discard(target.absolute())


def _beside(target: Path, ending: str) -> Path:
    """A hidden file beside ``target`` whose name begins with its own and is no other's."""
    own = zlib.crc32(target.name.encode("utf-8", "surrogateescape"))
    return target.with_name(f".{target.stem[:40]}.{own:08x}{ending}")


def _flush(file: Path) -> None:
    with open(file, "rb+") as handle:  # Windows flushes only what it may write
        _sync(handle.fileno())


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
