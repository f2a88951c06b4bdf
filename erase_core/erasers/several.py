"""A LoRA and an edit of weights in one file: what comes of combining them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..tensors import save_tensors
from .edit import WeightEdit
from .lora import EraserLora


class Several:
    """Erasers that act one after the other; an :class:`~erase_core.erasers.base.Eraser`."""

    def __init__(self, parts: Sequence[EraserLora | WeightEdit]) -> None:
        self.parts = tuple(parts)

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus every change at module ``name`` for its input ``x``."""
        for part in self.parts:
            y = part(name, x, y)
        return y

    def to(self, device: torch.device | str) -> Several:
        """Move the parameters (in place) and return self."""
        for part in self.parts:
            part.to(device)
        return self

    def scaled(self, strength: float) -> Several:
        """The same acting with ``strength`` times the changes."""
        return Several([part.scaled(strength) for part in self.parts])

    def parameters(self) -> list[nn.Parameter]:
        """Those of all parts."""
        return [parameter for part in self.parts for parameter in part.parameters()]

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds: the tensors of all parts, whose names differ."""
        return {name: t for part in self.parts for name, t in part.tensors().items()}

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the file that ComfyUI's LoRA loader takes, whole or not at all."""
        save_tensors(path, self.tensors(), metadata)
