"""The folder that a run keeps its checkpoints in: ``step-NNNNNN``, one each.

All else in it belongs to the person and is never touched. A checkpoint is written as
``.unfinished-*`` and renamed when it is whole; one that goes is first renamed to ``.replaced-*``.
So a process may die at any moment: :func:`tidy` then finds what was there before or what was to be
there after.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from re import compile as regex
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from ..concepts.sets import ConceptSet
from ..errors import EraseError
from ..files import read_json
from ..writing import flush_folder, free_name, locked, reason
from .checkpoint import FILES, RUN, DamagedError, Snapshot, read_checkpoint, write_checkpoint

T = TypeVar("T")
_NAME = regex(r"step-(\d{6,})")
_UNFINISHED = regex(r"\.unfinished-[0-9a-f]{8}")
_REPLACED = regex(rf"\.replaced-[0-9a-f]{{8}}-({_NAME.pattern})")


class Found(NamedTuple):
    """A checkpoint that was read; ``damaged`` are newer ones that could not be."""

    path: Path
    snapshot: Snapshot
    damaged: list[Path]


@contextmanager
def own_run_folder(path: Path) -> Iterator[Path]:
    """Hold the run folder ``path``, or the one around a checkpoint, for this process alone.

    It is made where it is missing, and goes at the end when nothing is in it.

    Raises
    ------
    EraseError
        When another process holds it or nothing can be written there.
    """
    folder = path.parent if is_checkpoint(path) else path
    try:
        with locked(folder / ".eraseanything.lock", folder):
            tidy(folder)
            yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is one checkpoint, not a folder of them."""
    return (path / RUN).exists() or bool(_NAME.fullmatch(path.name) and path.is_dir())


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, whole or damaged, oldest first."""
    named = [path for path in _entries(folder) if _NAME.fullmatch(path.name)]
    found = [path for path in named if any((path / name).exists() for name in FILES)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The iteration that a checkpoint's name tells; 0 for any other name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else 0


def load_checkpoint(path: Path) -> Found:
    """Read the checkpoint ``path``, or the newest whole one in the folder ``path``.

    Raises
    ------
    EraseError
        When there is none, none is whole, or it was written by another version.
    """
    if is_checkpoint(path):
        return Found(path, read_checkpoint(path), [])
    damaged: list[Path] = []
    for checkpoint in reversed(checkpoints(path)):
        try:
            return Found(checkpoint, read_checkpoint(checkpoint), damaged)
        except DamagedError:
            damaged.append(checkpoint)
    if damaged:
        raise EraseError(f"No checkpoint in {path} is whole; start the run anew.")
    raise EraseError(f"There is no checkpoint in {path}; check the path.")


def run_concepts(path: Path) -> ConceptSet:
    """What the run erases whose checkpoint is ``path``, or the newest readable one in it.

    EraseError when there is none.
    """
    return _newest(path, lambda run: ConceptSet.from_json(run["concepts"]))


def run_settings(path: Path) -> dict[str, Any]:
    """The settings of that run as plain JSON values; EraseError as :func:`run_concepts`."""
    return _newest(path, lambda run: dict(run["settings"]))


def _newest(path: Path, read: Callable[[Any], T]) -> T:
    """What ``read`` finds in the newest readable RUN."""
    for checkpoint in [path] if is_checkpoint(path) else reversed(checkpoints(path)):
        try:
            return read(read_json(checkpoint / RUN))
        except (EraseError, KeyError, TypeError, ValueError):
            continue
    raise EraseError(f"No checkpoint in {path} is whole; start the run anew.")


def save_checkpoint(
    folder: Path, snapshot: Snapshot, keep: int, superseded: Iterable[Path] = ()
) -> Path:
    """Write ``folder/step-NNNNNN``; then ``superseded`` go, and all but the ``keep`` newest.

    EraseError when the file system refuses; then nothing that was there is lost.
    """
    target = folder / f"step-{snapshot.step:06d}"
    temporary = folder / f".unfinished-{uuid4().hex[:8]}"
    aside: list[Path] = []
    try:
        temporary.mkdir(parents=True)
        write_checkpoint(temporary, snapshot)
        flush_folder(temporary)
        # The oldest first: whenever this process dies, the newest of the old ones is there.
        for path in sorted({*superseded, target}, key=step_of):
            if os.path.lexists(path):
                aside.append(_put_aside(path))
        os.replace(temporary, target)
        flush_folder(folder)
    except BaseException as error:
        for path in aside:
            _put_back(path)
        if isinstance(error, OSError):
            raise EraseError(
                f"Cannot write the checkpoint {target} ({reason(error)}); free some space or "
                "choose another folder."
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    aside += [_put_aside(path) for path in checkpoints(folder)[:-keep]]
    for path in aside:
        _remove(path)
    return target


def remove_checkpoints(folder: Path) -> None:
    """Delete a finished run's checkpoints; whatever else is in the folder stays."""
    for path in [_put_aside(path) for path in checkpoints(folder)]:
        _remove(path)


def tidy(folder: Path) -> None:
    """Remove what a process that died has left half done, or undo it.

    Nobody else may be writing there: see :func:`own_run_folder`.
    """
    replaced = [path for path in _entries(folder) if _REPLACED.fullmatch(path.name)]
    undo = not checkpoints(folder)
    for path in replaced:
        if undo and (path / RUN).exists():
            _put_back(path)
        else:
            _remove(path)
    for path in _entries(folder):
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _put_aside(checkpoint: Path) -> Path:
    aside = checkpoint.with_name(f".replaced-{uuid4().hex[:8]}-{checkpoint.name}")
    os.replace(checkpoint, aside)
    return aside


def _put_back(aside: Path) -> None:
    """Give a checkpoint, or what is left of its folder, its name back, unless that is taken."""
    match = _REPLACED.fullmatch(aside.name)
    if match:
        with suppress(OSError):
            os.replace(aside, free_name(aside.with_name(match[1])))


def _remove(aside: Path) -> None:
    """Delete a checkpoint's own files and its folder; one with anything else in it stays."""
    with suppress(OSError):
        if aside.is_symlink():
            aside.unlink()
            return
        for name in FILES:  # run.json first: from then on it is no checkpoint
            (aside / name).unlink(missing_ok=True)
        try:
            aside.rmdir()
        except OSError:
            _put_back(aside)
