"""One checkpoint: everything that a run needs to go on, as a folder of safetensors and JSON.

``lora.safetensors`` is a LoRA file as any other, the eraser so far; ``training.safetensors`` has
the raw parameters, both optimisers and the generator, ``erase.safetensors`` and
``keep.safetensors`` the states, ``run.json`` settings, concepts, prompts, step and losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import EraseError
from ..files import read_json, write_json
from ..tensors import read_tensors, save_tensors

VERSION = 1
RUN = "run.json"
FILES = (RUN, *(f"{n}.safetensors" for n in ("lora", "training", "erase", "keep")))


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


def write_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot's FILES into ``folder``; EraseError when the file system refuses."""
    save_tensors(folder / "lora.safetensors", snapshot.lora)
    save_tensors(folder / "training.safetensors", snapshot.training)
    for name, tensors in snapshot.states.items():
        save_tensors(folder / f"{name}.safetensors", tensors)
    head = {"version": VERSION, "step": snapshot.step, "states": sorted(snapshot.states)}
    write_json(folder / RUN, head | snapshot.run)


def read_checkpoint(folder: Path) -> Snapshot:
    """The snapshot in ``folder``.

    Raises
    ------
    EraseError
        When it was written by another version.
    DamagedError
        When something of it is missing or unreadable.
    """
    try:
        run = read_json(folder / RUN)
        version = run["version"]
        if version == VERSION:
            return Snapshot(
                step=run["step"],
                lora=_read(folder / "lora.safetensors"),
                training=_read(folder / "training.safetensors"),
                states={name: _read(folder / f"{name}.safetensors") for name in run["states"]},
                run=run,
            )
    except (EraseError, KeyError, TypeError) as error:
        raise DamagedError(
            f"The checkpoint {folder} is damaged ({str(error).split(';')[0]}); resume an older one."
        ) from error
    raise EraseError(f"{folder} was written by another version; start the run anew.")


class DamagedError(EraseError):
    """A checkpoint that is not whole."""


def _read(path: Path) -> dict[str, Tensor]:
    """A file's tensors in memory of their own: Windows keeps a file that is mapped, and a run
    deletes the checkpoints that it has left behind."""
    return {name: tensor.clone() for name, tensor in read_tensors(path)[0].items()}


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
