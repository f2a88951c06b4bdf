"""A setting is written once: its default, its limits and its help, in a method's dataclass.

Flags of the command line, inputs of nodes, tooltips and the docs' tables are made from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

from .errors import EraseError

S = TypeVar("S", bound="Settings")
PRESETS = ("fast", "balanced", "robust", "paper")  # names; which values, methods/presets.py says
ENDLESS = 1_000_000  # a highest number that nobody reaches, so that nobody need hear of it


class About(NamedTuple):
    """What a setting says of itself.

    ``kind`` is int, float, bool or str, and that of the entries where it is a list (``many``).
    ``low`` and ``high`` are the least and the greatest number, in ``unit``. ``step`` is that of a
    widget, and ``widest`` the greatest number that a widget offers. ``choices`` are all values
    there are; ``optional`` settings may be None. ``group`` says where it stands: "usual" or
    "expert". ``matters``: whether the eraser depends on it.
    """

    kind: type
    help: str
    many: bool = False
    optional: bool = False
    low: float = -math.inf
    high: float = math.inf
    step: float = 1
    widest: float = math.inf
    choices: tuple[str, ...] = ()
    group: str = "expert"
    unit: str = ""
    matters: bool = True

    @property
    def limits(self) -> str:
        """What it may be, for a person: "1 to 256", "from 0", "text or official"; "" for any."""
        if self.choices:
            return " or ".join([", ".join(self.choices[:-1]), self.choices[-1]])
        if self.kind is bool or self.kind is str or math.isinf(self.low):
            return ""
        ends = f"{self.low:,g} to {self.high:,g}" if self.high < ENDLESS else f"from {self.low:,g}"
        stride = f" in steps of {self.step:g}" if self.kind is int and self.step > 1 else ""
        return " ".join([ends, *([self.unit] if self.unit else [])]) + stride


def setting(default: Any, help: str, *, kind: type | None = None, **about: Any) -> Any:
    """A field of :class:`Settings`; ``about`` as in :class:`About`.

    Its kind is that of the default, unless it is said.
    """
    many = isinstance(default, tuple) or about.pop("many", False)
    told = kind or (type(default[0]) if isinstance(default, tuple) and default else type(default))
    return field(default=default, metadata={"about": About(told, help, many, **about)})


@dataclass(frozen=True)
class Settings:
    """Everything that a method can be told; EraseError for what cannot be."""

    def __post_init__(self) -> None:
        for name, about in self.about().items():
            check(name, getattr(self, name), about)

    @classmethod
    def about(cls) -> dict[str, About]:
        """What every setting says of itself, in the order of the fields."""
        return {item.name: item.metadata["about"] for item in dataclasses.fields(cls)}

    @classmethod
    def find(cls, name: str) -> About:
        """What a setting says of itself; EraseError naming what there is."""
        known = cls.about()
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}."
            )
            raise EraseError(f"There is no setting {name!r}; {hint}")
        return known[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = dataclasses.asdict(self)
        return {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """The inverse of :meth:`to_dict`; absent names keep their defaults, unknown ones raise."""
        return cls().changed(values)

    def changed(self: S, values: Mapping[str, Any]) -> S:
        """The same with other values for some; lists may stand for tuples."""
        for name in values:
            self.find(name)
        plain = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return dataclasses.replace(self, **plain)


def check(name: str, value: Any, about: About) -> None:
    """Refuse a value that a setting cannot have.

    Raises
    ------
    EraseError
        Saying what it may be.
    """
    if value is None and about.optional:
        return
    if about.many:
        if not isinstance(value, tuple) or not value or "" in value:
            raise EraseError(f"The setting {name} names nothing; write at least one.")
        for item in value:
            _check_one(name, item, about)
        return
    _check_one(name, value, about)


def _check_one(name: str, value: Any, about: About) -> None:
    if about.choices:
        if value not in about.choices:
            raise EraseError(f"The setting {name} must be one of {', '.join(about.choices)}.")
    elif about.kind in (int, float):
        _check_number(name, value, about)
    elif not isinstance(value, about.kind) or isinstance(value, bool) != (about.kind is bool):
        raise EraseError(f"The setting {name} must be a {about.kind.__name__}, not {value!r}.")
    elif isinstance(value, str) and value and not value.strip():
        raise EraseError(f"The setting {name} is blank; write a word, or leave it out.")


def _check_number(name: str, value: Any, about: About) -> None:
    kinds = int if about.kind is int else (int, float)
    number = isinstance(value, kinds) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and about.low <= value <= about.high):
        kind = "a whole number" if about.kind is int else "a number"
        ends = (("from", about.low), ("to", about.high))
        limits = "".join(f" {word} {end:,}" for word, end in ends if math.isfinite(end))
        raise EraseError(f"The setting {name} must be {kind}{limits}, not {value!r}.")


def read_pairs(settings: type[Settings], pairs: Sequence[str]) -> dict[str, Any]:
    """Settings as they are told on the command line: "lr=1e-3", lists as "a,b"."""
    found = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        found[name] = _read(name, text, settings.find(name))
    return found


def _read(name: str, text: str, about: About) -> Any:
    if about.many:
        return tuple(_read(name, part, about._replace(many=False)) for part in text.split(","))
    if about.kind is str:
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    check(name, value, about)
    return value
