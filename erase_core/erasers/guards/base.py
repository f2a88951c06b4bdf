"""Guards: erasers that act while a picture is drawn and change no weight.

To add a guard, put a file into this folder with a tuple ``GUARDS``. Its tensor functions serve both
halves: ``wrap`` gives a model of the core that is guarded, and ComfyUI's node calls the same
functions on what the host's model predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ...concepts.sets import ConceptSet
from ...errors import EraseError
from ...files import read_json, write_json
from ...models.base import Adapter, Conditioning, Model
from ...registry import collect, find
from ...settings import Settings, setting

VERSION = 1


class Act(Protocol):
    """What a guard does instead of ``model.velocity(x, sigma, cond, guidance, eraser)``.

    ``model`` is guarded by those before; ``model.plain`` is not.
    """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None,
        eraser: Adapter | None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Guarded(Model):
    """A model whose velocities are those of ``inner`` as ``act`` changes them."""

    inner: Model | None = None
    act: Act | None = None

    @classmethod
    def around(cls, model: Model, act: Act) -> Guarded:
        """``model`` with one more guard, which acts after those that it has."""
        own = {item.name: getattr(model, item.name) for item in fields(Model)}
        return cls(**own, inner=model, act=act)

    def velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        guidance: float | None = None,
        eraser: Adapter | None = None,
    ) -> Tensor:
        """As :meth:`.Model.velocity`, guarded."""
        assert self.inner is not None and self.act is not None
        return self.act(self.inner, x, sigma, cond, guidance, eraser)


def plain(model: Model) -> Model:
    """``model`` without its guards."""
    while isinstance(model, Guarded):
        assert model.inner is not None
        model = model.inner
    return model


@dataclass(frozen=True)
class GuardSettings(Settings):
    """What every guard can be told."""

    strength: float = setting(1.0, "how much is taken out; 0 is off", low=0, high=10, step=0.05)
    start: float = setting(0.0, "where it begins, a share of all steps", low=0, high=1, step=0.01)
    end: float = setting(1.0, "where it ends, a share of all steps", low=0, high=1, step=0.01)

    def levels(self, shift_mu: float | None) -> tuple[float, float]:
        """The window as noise levels, from high to low, of a model with this shift."""
        factor = 1.0 if shift_mu is None else math.exp(shift_mu)
        high, low = (factor * t / (factor * t + 1 - t) for t in (1 - self.start, 1 - self.end))
        return high, low


@dataclass(frozen=True)
class GuardMethod:
    """A way of guarding.

    Attributes
    ----------
    name, label
        On command lines and in files; for people.
    paper
        What it follows.
    settings
        All that it can be told.
    act
        What it does to a model, for concepts and settings.
    """

    name: str
    label: str
    paper: str
    settings: type[GuardSettings]
    act: Callable[[Model, ConceptSet, Any], Act]


@dataclass(frozen=True)
class Guard:
    """A concept set that a method keeps out of pictures."""

    method: GuardMethod
    concepts: ConceptSet
    settings: GuardSettings

    def wrap(self, model: Model) -> Model:
        """``model``, guarded; encodes what the guard needs to know. At strength 0 the same one."""
        if self.settings.strength == 0:
            return model
        return Guarded.around(model, self.method.act(model, self.concepts, self.settings))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": VERSION,
            "guard": self.method.name,
            "concepts": self.concepts.to_json(),
            "settings": self.settings.to_dict(),
        }

    def save(self, path: Path | str) -> None:
        """Write the JSON file, whole or not at all."""
        write_json(path, self.to_json())

    @classmethod
    def from_json(cls, value: object) -> Guard:
        """Read plain JSON values; EraseError names what is wrong."""
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise EraseError(
                f"This is no guard of version {VERSION}; make one with the command guard."
            )
        method = find_guard(str(value.get("guard")))
        told = value.get("settings", {})
        if not isinstance(told, dict):
            raise EraseError("settings must be an object.")
        concepts = ConceptSet.from_json(value.get("concepts"))
        return cls(method, concepts, method.settings.from_dict(told))

    @classmethod
    def load(cls, path: Path | str) -> Guard:
        """Read a JSON file; EraseError names the file and what is wrong in it."""
        value = read_json(path)
        try:
            return cls.from_json(value)
        except EraseError as error:
            raise EraseError(f"{path}: {error}") from error


def guards() -> dict[str, GuardMethod]:
    """All ways of guarding by name."""
    return collect(__package__ or "", "GUARDS", GuardMethod)


def find_guard(name: str) -> GuardMethod:
    """A way of guarding by its name; EraseError, listing what there is, for any other."""
    return find(guards(), name, "guard")
