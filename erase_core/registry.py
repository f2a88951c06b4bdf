"""Finds what each file of a room offers: one file more is one row, column or choice more."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol, TypeVar

from .errors import EraseError


class Named(Protocol):
    """Anything that is called by its ``name``."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


def collect(room: str, attribute: str, kind: type[Entry], inner: str = "") -> dict[str, Entry]:
    """The entries in the tuple ``attribute`` of every module of the package ``room``, by name, file
    after file in alphabetical order. A folder has them in its module ``inner``, else in itself."""
    package = import_module(room)
    found: dict[str, Entry] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        name = f"{module.name}.{inner}" if module.ispkg and inner else module.name
        loaded = import_module(f"{room}.{name}")
        entries: tuple[Entry, ...] = getattr(loaded, attribute, ())
        found |= {entry.name: entry for entry in entries}
    return found


def find(known: dict[str, Entry], name: str, what: str) -> Entry:
    """The entry of that name; EraseError, listing all, for any other."""
    if name not in known:
        raise EraseError(f"There is no {what} {name}; choose from {', '.join(known)}.")
    return known[name]
