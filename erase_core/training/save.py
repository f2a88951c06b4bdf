"""A run's LoRA as a file, also when the run ended early."""

from __future__ import annotations

from pathlib import Path

from ..errors import EraseError
from ..writing import free_name
from .metadata import lora_metadata
from .trainer import Trainer, TrainResult


def save_result(
    result: TrainResult, trainer: Trainer, path: Path, base_name: str, base_sha256: str
) -> Path | None:
    """Write the LoRA to ``path``, or beside it under a name that says how far an unfinished run
    got; returns where it is, None when there was nothing to write yet.

    Raises
    ------
    EraseError
        When the file cannot be written; then the run has a checkpoint to be resumed from.
    """
    if result.stopped != "done":
        if not result.history:
            return None
        partial = f"{path.stem}.partial-{len(result.history)}{path.suffix}"
        path = free_name(path.with_name(partial))
    metadata = lora_metadata(result, trainer.concepts, trainer.settings, base_name, base_sha256)
    try:
        result.lora.save(path, metadata)
    except EraseError:
        trainer.keep()
        raise
    return path


def rescue(trainer: Trainer, path: Path, base_name: str, base_sha256: str) -> Path | None:
    """As :func:`save_result` with what a run has that failed; None when that fails, too."""
    partial = TrainResult(trainer.lora, trainer.history, {}, "cancelled")
    try:
        return save_result(partial, trainer, path, base_name, base_sha256)
    except EraseError:
        return None
