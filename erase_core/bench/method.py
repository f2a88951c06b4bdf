"""What a method of erasing is to the benchmark, and where it finds all of them.

To add a method, put a file into ``methods/`` with a tuple ``METHODS``; it appears in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..bundle import Bundle
from ..concepts.sets import Concept, ConceptSet
from ..flux.forward import Lora
from .registry import collect, find


class Eraser(Lora, Protocol):
    """What a method leaves behind: it acts in the forward pass, and ComfyUI loads its file."""

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds."""
        ...

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the file, whole or not at all."""
        ...


@dataclass(frozen=True)
class Task:
    """Erase these concepts from this model; same seed, same eraser.

    ``on_step(done, total)`` hears how far the work is.
    """

    bundle: Bundle
    concepts: ConceptSet
    seed: int = 0
    on_step: Callable[[int, int], None] = lambda done, total: None

    @property
    def concept(self) -> Concept:
        """The first concept, for methods that know only one."""
        return self.concepts.concepts[0]


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    ``name`` is said on the command line and in files, ``label`` in tables and plots; ``source`` is
    the paper it follows; ``erase`` does the work (None leaves the model as it is).
    """

    name: str
    label: str
    source: str
    erase: Callable[[Task], Eraser | None]


def methods() -> dict[str, Method]:
    """All methods by name, file after file in alphabetical order."""
    return collect("methods", "METHODS", Method)


def find_method(name: str) -> Method:
    """A method by its name; EraseError, listing them, for any other."""
    return find(methods(), name, "method")
