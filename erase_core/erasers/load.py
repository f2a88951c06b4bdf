"""Reading an eraser's file, whatever kind it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import EraseError
from ..models.base import Model, Slot
from ..tensors import read_tensors
from .edit import BIAS, ENCODERS, SUFFIX, WeightEdit
from .lora import EraserLora, bake, change_norms
from .several import Several

AnyEraser = EraserLora | WeightEdit | Several


def load(path: Path | str, model: Model) -> AnyEraser:
    """The eraser in a file, on the device of the ``model`` it is for.

    Raises
    ------
    EraseError
        When the file is missing, is no eraser, or was made for another base.
    """
    linears = model.family.linears(model.config)
    return from_tensors(read_tensors(path)[0], linears, str(path)).to(model.device)


def from_tensors(
    tensors: Mapping[str, Tensor], linears: Mapping[str, Slot], origin: str
) -> AnyEraser:
    """As :func:`load`, from tensors under a file's names, for a base that has these ``linears``;
    ``origin`` is named in errors."""
    lora, edit = parts(tensors)
    made: list[EraserLora | WeightEdit] = []
    if lora or not edit:
        made.append(EraserLora.from_tensors(lora, linears, origin))
    if edit:
        made.append(_edit(edit, linears, origin))
    return made[0] if len(made) == 1 else Several(made)


def parts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a file holds of a LoRA and of a weight edit."""
    edit = {name: tensor for name, tensor in tensors.items() if name.endswith((SUFFIX, BIAS))}
    return {name: tensor for name, tensor in tensors.items() if name not in edit}, edit


def check(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse tensors that are no eraser, whatever base it may be for.

    Raises
    ------
    EraseError
        Naming ``origin``: for foreign names and shapes, NaN and infinity.
    """
    lora, edit = parts(tensors)
    if lora or not edit:
        bake(lora, origin)
    if edit:
        WeightEdit.from_tensors(edit, origin)


def refuse_encoders(tensors: Mapping[str, Tensor], origin: str) -> None:
    """EraseError for an eraser that changes a text encoder, where only the transformer's part of it
    would act; ``origin`` is named in it."""
    if any(name.startswith(ENCODERS) for name in tensors):
        raise EraseError(
            f"{origin} changes the text encoder, which cannot be shown here; draw with generate, "
            "or with ComfyUI's Load LoRA."
        )


def change_sizes(tensors: Mapping[str, Tensor], origin: str) -> dict[str, float]:
    """Frobenius norm of the change of every Linear in a file, by its name there."""
    lora, edit = parts(tensors)
    sizes = change_norms(lora, origin) if lora or not edit else {}
    if edit:
        found = WeightEdit.from_tensors(edit, origin)
        for name in dict.fromkeys([*found.changes, *found.biases]):
            both = (found.changes.get(name), found.biases.get(name))
            sizes[name] = math.hypot(*(part.norm().item() for part in both if part is not None))
    return sizes


def _edit(tensors: Mapping[str, Tensor], linears: Mapping[str, Slot], origin: str) -> WeightEdit:
    edit = WeightEdit.from_tensors(tensors, origin)
    shapes: dict[str, tuple[int, ...]] = {}
    for slot in linears.values():
        rows = max(slot.rows.stop, shapes.get(slot.module, (0, 0))[0])
        shapes[slot.module] = (rows, slot.in_features)
    own = {n: c for n, c in edit.changes.items() if not n.startswith(ENCODERS)}
    weights = all(shapes.get(name) == tuple(c.shape) for name, c in own.items())
    biases = all(shapes.get(n, ())[:1] == tuple(c.shape) for n, c in edit.biases.items())
    if not (weights and biases):
        raise EraseError(f"{origin} does not fit this base model; choose the one it was made for.")
    return edit
