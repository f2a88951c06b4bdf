"""What a method of erasing is to the benchmark, and where it finds all of them.

To add a method, put a file into ``methods/`` with a tuple ``METHODS``; it appears in every table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..concepts.sets import Concept, ConceptSet
from ..errors import EraseError
from ..models.base import Bundle
from ..models.flux1.forward import Lora
from ..registry import collect, find


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
    the paper it follows; ``run(task, **settings)`` does the work (None leaves the model as it is).
    A setting that is None takes what ``kinds`` has for the kind of the first concept.
    """

    name: str
    label: str
    source: str
    run: Callable[..., Eraser | None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def erase(self, task: Task) -> Eraser | None:
        """Do the work with the method's settings."""
        return self.run(task, **self.suited(task.concept))

    def suited(self, concept: Concept) -> dict[str, Any]:
        """The settings that suit a concept's kind."""
        own = self.kinds.get(concept.kind, {})
        return {n: own.get(n) if value is None else value for n, value in self.settings.items()}

    def changed(self, pairs: Sequence[str]) -> Method:
        """A row of its own: the method with other settings, each told as "lr=1e-3"."""
        if not pairs:
            return self
        settings = dict(self.settings)
        kind = next(iter(self.kinds.values()), {})
        for pair in pairs:
            name, _, text = pair.partition("=")
            if name not in settings:
                known = ", ".join(settings) or "none"
                raise EraseError(f"The method {self.name} has no setting {name}; it has {known}.")
            like = kind.get(name) if settings[name] is None else settings[name]
            settings[name] = _value(text, like)
        told = " ".join(pairs)
        return replace(
            self, name=f"{self.name} {told}", label=f"{self.label}, {told}", settings=settings
        )


def _value(text: str, default: Any) -> Any:
    """A setting as it is written on the command line; lists are told as "a,b"."""
    if isinstance(default, (tuple, list)):
        return tuple(text.split(","))
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
        raise EraseError(
            f'The benchmark was told "{text}" where a number belongs; write e.g. 1e-3.'
        )
    return value


def methods() -> dict[str, Method]:
    """All methods by name, file after file in alphabetical order."""
    return collect(__package__ or "", "METHODS", Method)


def find_method(name: str) -> Method:
    """A method by its name, or with other settings: "esd-x lr=2e-4 eta=0".

    EraseError, listing what there is, for any other.
    """
    plain, *changes = name.split() or [name]
    return find(methods(), plain, "method").changed(changes)
