"""Guards: erasers that act while a picture is drawn and change no weight.

To add a guard, put a file into this folder with a tuple ``GUARDS``. Its tensor functions serve both
halves: ``wrap`` gives a model of the core that is guarded, and ComfyUI's node calls the same
functions on what the host's model predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...concepts.sets import ConceptSet
from ...errors import EraseError
from ...files import read_json, write_json
from ...models.base import Adapter, Conditioning, Model, TextEncoder
from ...registry import collect, find
from ...settings import Settings, setting
from ...tensors import read_tensors, save_tensors
from ..base import Both
from ..load import AnyEraser, from_tensors

VERSION = 2  # of the file; one of version 1 does not name its eraser, OLD_WEIGHTS instead of .json
EDGE = 1e-3  # of a window: hosts round the levels of their schedules
WEIGHTS, OLD_WEIGHTS = ".guard.safetensors", ".safetensors"  # of the eraser's copy beside a guard


class Call(NamedTuple):
    """What is asked of a model: the arguments of :meth:`.Model.velocity`.

    ``kept`` is what a guard keeps from step to step of a drawing. It is None where a velocity
    stands alone, as an attacker's do.
    """

    x: Tensor
    sigma: Tensor
    cond: Conditioning
    guidance: float | None
    eraser: Adapter | None
    kept: dict[str, Any] | None = None

    def of(self, model: Model) -> Tensor:
        """What ``model`` answers."""
        return model.velocity(self.x, self.sigma, self.cond, self.guidance, self.eraser)

    def gated(self, more: Adapter) -> Call:
        """The same with one more eraser."""
        return self._replace(eraser=more if self.eraser is None else Both(self.eraser, more))


def at(call: Call, prompt: Conditioning, eraser: Adapter | None = None) -> Call:
    """The call with one prompt for all its pictures, and with no eraser but this one."""
    cond = prompt.select([0] * len(call.x)).to(call.x.device)
    return call._replace(cond=cond, eraser=eraser)


# What a guard answers instead of ``call.of(model)``, where ``model`` has the guards before it;
# ``plain(model)`` is without them.
Act = Callable[[Model, Call], Tensor]


@dataclass(frozen=True)
class Guarded(Model):
    """A model whose velocities are those of ``inner``, changed by ``act`` at the noise levels of a
    ``window``, from high to low."""

    inner: Model | None = None
    act: Act | None = None
    window: tuple[float, float] = (1.0, 0.0)
    kept: dict[str, Any] | None = None

    @classmethod
    def around(cls, model: Model, act: Act, window: tuple[float, float]) -> Guarded:
        """``model`` with one more guard, which acts after those that it has."""
        own = {item.name: getattr(model, item.name) for item in fields(Model)}
        return cls(**own, inner=model, act=act, window=window)

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
        call = Call(x, sigma, cond, guidance, eraser, self.kept)
        return self.act(self.inner, call) if inside(self.window, sigma) else call.of(self.inner)

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        """As :meth:`.Model.sample`; only then are velocities the steps of one drawing."""
        return Model.sample(self.in_one_drawing(), *args, **kwargs)

    def in_one_drawing(self) -> Guarded:
        """The same, whose guards keep what they find from step to step."""
        inner = self.inner.in_one_drawing() if isinstance(self.inner, Guarded) else self.inner
        return replace(self, inner=inner, kept={})


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


def inside(window: tuple[float, float], sigma: Tensor) -> bool:
    """Whether noise levels () or (B,) lie in a window, from high to low; both ends belong to it."""
    high, low = window
    return low * (1 - EDGE) <= float(sigma.max()) <= high * (1 + EDGE)


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
        What it does to a model that it guards, inside the settings' window.
    eraser
        Whether it needs an eraser's file, whose strength it then decides.
    learn
        What it learns of concepts from a text encoder, tensors that its file then holds; None for
        methods that learn nothing.
    """

    name: str
    label: str
    paper: str
    settings: type[GuardSettings]
    act: Callable[[Model, Any], Act]
    eraser: bool = False
    learn: Callable[[TextEncoder, ConceptSet, Any], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Guard:
    """A concept set that a method keeps out of pictures.

    ``tensors`` and ``metadata`` are those of an eraser's file, for methods that want one;
    EraseError where it is missing. Methods that learn keep in ``tensors`` what they learned, and
    learn it when they are wrapped around a model where there are none.
    """

    method: GuardMethod
    concepts: ConceptSet
    settings: Any
    tensors: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.method.eraser and not self.tensors:
            raise EraseError(
                f"{self.method.label} decides an eraser's strength; name the eraser's file."
            )

    def wrap(self, model: Model) -> Model:
        """``model``, guarded; encodes what the guard needs to know. At strength 0 the same one."""
        if self.settings.strength == 0:
            return model
        window = self.settings.levels(model.shift_mu)
        return Guarded.around(model, self.method.act(model, self), window)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": VERSION,
            "guard": self.method.name,
            "concepts": self.concepts.to_json(),
            "settings": self.settings.to_dict(),
        }

    def eraser(self, model: Model) -> AnyEraser:
        """Its eraser, on the device of the ``model`` it is for; EraseError if it does not fit."""
        linears = model.family.linears(model.config)
        made = from_tensors(self.tensors, linears, f"The eraser of {self.method.label}")
        return made.to(model.device)

    def save(self, path: Path | str) -> None:
        """Write the JSON file, and a copy of the eraser beside it (:func:`weights_of`), which it
        names; each whole or not at all."""
        value = self.to_json()
        if self.tensors:
            weights = weights_of(path)
            save_tensors(weights, self.tensors, self.metadata)
            value["eraser"] = weights.name
        write_json(path, value)

    @classmethod
    def from_json(
        cls,
        value: object,
        tensors: Mapping[str, Tensor] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Guard:
        """Read plain JSON values; EraseError names what is wrong."""
        if not isinstance(value, dict) or value.get("version") not in (1, VERSION):
            raise EraseError(
                f"This is no guard of version {VERSION}; make one with the command guard."
            )
        method = find_guard(str(value.get("guard")))
        told = value.get("settings", {})
        if not isinstance(told, dict):
            raise EraseError("settings must be an object.")
        concepts = ConceptSet.from_json(value.get("concepts"))
        settings = method.settings.from_dict(told)
        return cls(method, concepts, settings, tensors or {}, metadata or {})

    @classmethod
    def load(cls, path: Path | str) -> Guard:
        """Read a JSON file and the eraser that it names; EraseError names the file and what is
        wrong in it."""
        value = read_json(path)
        try:
            weights = _named(value, Path(path))
            tensors, metadata = read_tensors(weights) if weights else ({}, {})
            return cls.from_json(value, tensors, metadata)
        except EraseError as error:
            raise EraseError(f"{path}: {error}") from error


def weights_of(path: Path | str) -> Path:
    """Where the guard in the file ``path`` keeps a copy of its eraser."""
    return Path(path).with_suffix(WEIGHTS)


def _named(value: object, path: Path) -> Path | None:
    """The eraser's file that the guard ``value`` in the file ``path`` names; None without any."""
    if not isinstance(value, dict):
        return None
    if value.get("version") == 1:
        old = path.with_suffix(OLD_WEIGHTS)
        return old if find_guard(str(value.get("guard"))).eraser and old.is_file() else None
    name = value.get("eraser")
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith(WEIGHTS) or Path(name).name != name:
        raise EraseError(f"eraser must be the name of a file beside it that ends in {WEIGHTS}.")
    return path.with_name(name)


def guards() -> dict[str, GuardMethod]:
    """All ways of guarding by name."""
    return collect(__package__ or "", "GUARDS", GuardMethod)


def find_guard(name: str) -> GuardMethod:
    """A way of guarding by its name; EraseError, listing what there is, for any other."""
    return find(guards(), name, "guard")
