"""A run's eraser as a file, also when the run ended early."""

from __future__ import annotations

import json
from pathlib import Path

from ..concepts.sets import ConceptSet
from ..erasers.metadata import Base, metadata, network
from ..errors import EraseError
from ..writing import free_name
from .result import Result


def save_result(result: Result, concepts: ConceptSet, base: Base, path: Path) -> Path | None:
    """Write the eraser to ``path``, or beside it under a name that says how far an unfinished run
    got. Returns where it is, None when there was nothing to write yet.

    Raises
    ------
    EraseError
        When the file cannot be written.
    """
    if result.eraser is None:
        return None
    if result.stopped != "done":
        if not result.history:
            return None
        partial = f"{path.stem}.partial-{len(result.history)}{path.suffix}"
        path = free_name(path.with_name(partial))
    result.eraser.save(path, file_metadata(result, concepts, base))
    return path


def file_metadata(result: Result, concepts: ConceptSet, base: Base) -> dict[str, str]:
    """What the file of a run's eraser says about itself."""
    about = metadata(base, concepts, result.settings, result.history, result.stopped)
    about |= {"erase.method": result.method, "erase.pictures": str(result.pictures)}
    if result.extends:
        about["erase.extends"] = result.extends
    if result.measured:
        about["erase.measured"] = json.dumps(dict(result.measured), sort_keys=True)
    return about | network(result.eraser.tensors() if result.eraser else {})


def rescue(result: Result, concepts: ConceptSet, base: Base, path: Path) -> Path | None:
    """As :func:`save_result` with what a run has that failed; None when that fails, too."""
    try:
        return save_result(result, concepts, base, path)
    except EraseError:
        return None
