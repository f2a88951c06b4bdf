"""What a method leaves behind: it acts in the forward pass, and is a file that others load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from ..models.base import Adapter


class Eraser(Adapter, Protocol):
    """A LoRA or an edit of weights: ComfyUI's LoRA loader takes its file."""

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, float32, in a fixed order."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds."""
        ...

    def scaled(self, strength: float) -> Eraser:
        """The same acting with ``strength`` times the change."""
        ...

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the file, whole or not at all."""
        ...


def nothing(name: str, x: Tensor, y: Tensor) -> Tensor:
    """An adapter that changes nothing."""
    return y


class Both:
    """Two adapters at once; an :class:`~erase_core.models.base.Adapter`."""

    def __init__(self, first: Adapter, second: Adapter) -> None:
        self.first, self.second = first, second

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus both changes at module ``name`` for its input ``x``."""
        return self.second(name, x, self.first(name, x, y))
