"""Write docs/settings.md: every setting of every method, from what the settings say of themselves.

PYTHONPATH=. python tools/docs/settings.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erase_core.methods.base import Method, methods
from erase_core.settings import About

OUT = Path(__file__).parents[2] / "docs" / "settings.md"
HEAD = """\
# Settings

Made by `tools/docs/settings.py`; a test holds it to the code. Each setting is written once, in its
method's file. Flags, node inputs and tooltips are made from the same place.

`train` takes the settings of *eraseanything* as flags (`--lr-low 5e-4`), and those of any method
with `--set` (`--method esd-x --set lr=2e-4`). Values here are defaults; a preset or the kind of
concept may choose others.
"""


def page() -> str:
    """The whole page as Markdown."""
    shown: list[type] = []
    parts = [HEAD]
    for method in methods().values():
        if method.settings.about() and method.settings not in shown:
            shown.append(method.settings)
            parts.append(_section(method))
    return "\n".join(parts)


def _section(method: Method) -> str:
    """A table of one method's settings."""
    names = [m.name for m in methods().values() if m.settings is method.settings]
    plain = method.settings()
    rows = [
        f"| `{name}` | {_plain(getattr(plain, name))} | {_limits(about)} | {about.help} |"
        for name, about in method.settings.about().items()
    ]
    head = ["| Setting | Default | Range | What it does |", "|---|---|---|---|"]
    return "\n".join([f"## {', '.join(names)}", "", *head, *rows, ""])


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "–" if value in (None, "") else str(value)


def _limits(about: About) -> str:
    return "on or off" if about.kind is bool else about.limits or "–"


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
