"""Checkpoints: one folder each, whole or not at all, safetensors and JSON only.

``step-000100/`` holds ``lora.safetensors`` (a LoRA file as any other, the eraser so far),
``training.safetensors`` (raw parameters, both optimisers, generator), ``erase.safetensors`` and
``keep.safetensors`` (the states) and ``run.json`` (settings, concepts, prompts, step, losses).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from ..errors import EraseError
from ..files import read_json, read_tensors, save_tensors, write_json

VERSION = 1
_NAME = re.compile(r"step-(\d{6,})")
_TEMPORARY = ".unfinished-"


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on as if it had never stopped.

    ``lora`` are the tensors of the LoRA file; ``training`` raw parameters, optimisers and
    generator; ``states`` the tensors of "erase" and "keep"; ``run`` plain JSON values.
    """

    step: int
    lora: dict[str, Tensor]
    training: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]]
    run: dict[str, Any]


def save_checkpoint(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write ``folder/step-NNNNNN`` and delete all but the ``keep`` newest beside it.

    Written to a temporary folder that takes the name at the end. EraseError when the file system
    refuses; then nothing that was there is lost.
    """
    target = folder / f"step-{snapshot.step:06d}"
    temporary = folder / f"{_TEMPORARY}{uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        save_tensors(temporary / "lora.safetensors", snapshot.lora)
        save_tensors(temporary / "training.safetensors", snapshot.training)
        for name, tensors in snapshot.states.items():
            save_tensors(temporary / f"{name}.safetensors", tensors)
        head = {"version": VERSION, "step": snapshot.step, "states": sorted(snapshot.states)}
        write_json(temporary / "run.json", head | snapshot.run)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        raise EraseError(
            f"Cannot write the checkpoint {target} ({error.strerror}); free some space or choose "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(folder: Path) -> tuple[Path, Snapshot]:
    """Read a checkpoint folder, or the newest one inside ``folder``; with its path.

    Raises
    ------
    EraseError
        When there is none, or it was written by another version.
    """
    if not (folder / "run.json").exists():
        found = checkpoints(folder)
        if not found:
            raise EraseError(f"There is no checkpoint in {folder}; check the path.")
        folder = found[-1]
    run = read_json(folder / "run.json")
    if run.get("version") != VERSION:
        raise EraseError(f"{folder} was written by another version; start the run anew.")
    return folder, Snapshot(
        step=run["step"],
        lora=_read(folder / "lora.safetensors"),
        training=_read(folder / "training.safetensors"),
        states={name: _read(folder / f"{name}.safetensors") for name in run["states"]},
        run=run,
    )


def _read(path: Path) -> dict[str, Tensor]:
    """A file's tensors in memory of their own: Windows keeps a file that is mapped, and a run
    deletes the checkpoints that it has left behind."""
    return {name: tensor.clone() for name, tensor in read_tensors(path)[0].items()}


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    found = [path for path in named if (path / "run.json").exists()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def prepare_folder(folder: Path) -> None:
    """Make ``folder`` ready for a new run: remains of a crash go, checkpoints must not be there.

    Raises
    ------
    EraseError
        When it holds checkpoints, which a new run would overwrite.
    """
    if checkpoints(folder):
        raise EraseError(
            f"{folder} holds the checkpoints of another run; resume it or choose another folder."
        )
    if folder.is_dir():
        for path in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)


def pack_optimiser(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors ``prefix.<parameter index>.<name>``."""
    state = optimiser.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": t for i, entry in state.items() for name, t in entry.items()}


def unpack_optimiser(
    prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of :func:`pack_optimiser`, into ``optimiser``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".")
            state.setdefault(int(index), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
