"""A weight edit as a LoRA of low rank, under diffusers' names, which every loader takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.base import Slot
from .edit import WeightEdit
from .lora import DOWN, UP, EraserLora
from .several import Several

SPARE = 8  # directions beyond the rank that the randomised SVD looks at
TURNS = 4  # of its power iteration


def as_lora(
    edit: WeightEdit, linears: Mapping[str, Slot], rank: int
) -> tuple[EraserLora | WeightEdit | Several, dict[str, float]]:
    """The LoRA of this rank nearest to an edit (Eckart and Young), and by its name in the file what
    it misses of each matrix: ``|D - B A| / |D|``.

    Biases stay an edit beside it, and so do matrices that have no name in a LoRA file.
    """
    named: dict[str, dict[str, Slot]] = {}
    for name, slot in linears.items():
        named.setdefault(slot.module, {})[name] = slot
    tensors: dict[str, Tensor] = {}
    missed: dict[str, float] = {}
    for module in edit.changes.keys() & named.keys():
        for name, slot in named[module].items():
            change = edit.changes[module].detach()[slot.rows]
            down, up = factors(change, rank)
            tensors |= {name + DOWN: down, name + UP: up}
            missed[name] = float((change - up @ down).norm() / change.norm().clamp(min=1e-30))
    whole = {name: c for name, c in edit.changes.items() if name not in named}
    rest = WeightEdit(whole, edit.biases)
    lora = EraserLora.from_tensors(dict(sorted(tensors.items())), linears) if tensors else None
    parts = [part for part in (lora, rest if rest.parameters() else None) if part is not None]
    return (parts[0] if len(parts) == 1 else Several(parts)), dict(sorted(missed.items()))


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank), float32, whose product is the best there is of this rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(change.float(), min(rank + SPARE, *change.shape), niter=TURNS)
    root = s[:rank].sqrt()
    down, up = (v[:, :rank] * root).T, u[:, :rank] * root
    return down.contiguous(), up.contiguous()
