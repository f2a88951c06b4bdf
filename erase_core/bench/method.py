"""What a method of erasing is to the benchmark, and where it finds all of them.

To add a method, put a file into ``methods/`` with a tuple ``METHODS``; it appears in every table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..bundle import Bundle
from ..concepts.sets import Concept, ConceptSet
from ..errors import EraseError
from ..flux.forward import Lora


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
    from . import methods as package

    found: dict[str, Method] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        found |= {method.name: method for method in getattr(loaded, "METHODS", ())}
    return found


def find_method(name: str) -> Method:
    """A method by its name; EraseError, listing them, for any other."""
    known = methods()
    if name not in known:
        raise EraseError(f"There is no method {name}; choose from {', '.join(known)}.")
    return known[name]
