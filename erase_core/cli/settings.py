"""Every setting of a method as an option of its own, made from what the setting says of itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import EraseError

if TYPE_CHECKING:
    from ..settings import About, Settings

UNTOLD = {"method": "eraseanything", "preset": "", "set": []}  # flags that are not given
GROUPS = {"usual": "settings", "expert": "settings for experts"}


def add_settings(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """All settings of a method, the usual ones first; None stands for "not given"."""
    for group, title in GROUPS.items():
        part = parser.add_argument_group(title)
        for name, about in settings.about().items():
            if about.group == group:
                _add(part, name, about, getattr(settings(), name))


def _add(part: argparse._ArgumentGroup, name: str, about: About, default: Any) -> None:
    flag, shown = "--" + name.replace("_", "-"), _shown(about, default)
    if about.kind is bool:
        part.add_argument(flag, action="store_const", const=True, help=shown)
    elif about.many:
        part.add_argument(flag, nargs="+", type=about.kind, metavar="X", help=shown)
    else:
        kind = str if about.kind is str else number
        part.add_argument(flag, type=kind, metavar="X", help=shown)


def _shown(about: About, default: Any) -> str:
    """The help with the limits and the default, unless it tells one itself."""
    shown = f"{about.help}; {about.limits}" if about.limits else about.help
    if default in (None, "", False) or "(default" in about.help:
        return shown
    told = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{shown} (default {told})"


def number(text: str) -> int | float:
    """A whole number where it looks like one; the settings themselves check that it fits."""
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def given(args: argparse.Namespace, settings: type[Settings]) -> dict[str, Any]:
    """The settings that the command line tells."""
    found = {name: getattr(args, name) for name in settings.about()}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not None
    }


def refuse_settings(args: argparse.Namespace, settings: type[Settings]) -> None:
    """A resumed run keeps its method and its settings, all but the number of steps.

    Raises
    ------
    EraseError
        When another setting is given.
    """
    more = [name for name, usual in UNTOLD.items() if getattr(args, name) != usual]
    for name in (*given(args, settings), *more):
        if name != "steps":
            raise EraseError(
                f"A resumed run keeps its settings; leave --{name.replace('_', '-')} out."
            )
