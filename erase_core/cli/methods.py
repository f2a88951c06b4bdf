"""``eraseanything methods``: every method of erasing that there is."""

from __future__ import annotations

import argparse
from typing import Any

from .output import say

HELP = "list the methods of erasing"
DESCRIPTION = """\
List every method: how its eraser comes about, its paper, and the families of models it works on. A
product is offered to people; the others are rows of tables. Seconds and memory are those of one
thing on MiniFlux (docs/RESULTS.md), on two CPU cores."""
EXAMPLES = """\
examples:
  eraseanything methods
  eraseanything methods --settings esd-x     # what a method can be told
  eraseanything train --concept cat --method uce --out cat.safetensors"""
SHOWN = ("name", "made", "product", "families", "seconds", "memory_gb", "paper")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", metavar="NAME", help="show the settings of one method")


def run(args: argparse.Namespace) -> int:
    from ..methods.base import find_method, methods

    if args.settings:
        rows = _settings(find_method(args.settings))
        say(
            args,
            {"settings": rows},
            *_columns(rows, ("name", "default", "limits", "help")),
            only=True,
        )
        return 0
    rows = [_row(method) for method in methods().values()]
    say(args, {"methods": rows}, *_columns(rows, SHOWN), only=True)
    return 0


def _row(method: Any) -> dict[str, Any]:
    """A method as plain values."""
    cost = method.cost
    return {
        "name": method.name,
        "label": method.label,
        "made": method.made,
        "product": method.product,
        "families": list(method.families) or ["all"],
        "paper": method.paper,
        "seconds": cost.seconds if cost else None,
        "memory_gb": cost.memory_gb if cost else None,
    }


def _settings(method: Any) -> list[dict[str, Any]]:
    plain = (method.settings().changed(method.own)).to_dict()
    return [
        {"name": name, "default": plain[name], "limits": about.limits, "help": about.help}
        for name, about in method.settings.about().items()
    ]


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[str]:
    """Rows as text, the columns as wide as they must be."""
    lines = [list(names), *([_plain(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
