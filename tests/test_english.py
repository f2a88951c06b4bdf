"""No sentence of a help text, a tooltip or a help page has more than 25 words."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erase_core.cli.main import build_parser
from erase_core.methods.base import methods

MOST = 25
ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "locales" / "en" / "nodeDefs.json"
DOCS = [ROOT / "docs" / f"{name}.md" for name in ("families", "guards", "instant", "many")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *(ROOT / "web" / "docs").glob("*.md")]


def sentences(text: str) -> list[str]:
    """What ends in a full stop, which "e.g." and "Eq. 2" have none of, or before a blank line or an
    indented one."""
    parts = re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!Eq\.)\s+|\n\s*\n|\n(?= )", text)
    return [" ".join(part.split()) for part in parts if part]


def long(texts: Iterator[str]) -> list[str]:
    return [s for text in texts for s in sentences(text) if len(s.split()) > MOST]


def told(command: argparse.ArgumentParser) -> Iterator[str]:
    yield command.description or ""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield choice.help or ""
            for below in action.choices.values():
                yield from told(below)
        elif action.help and action.help != argparse.SUPPRESS:
            yield action.help


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for below in value.values():
            yield from leaves(below)


def prose(page: str) -> Iterator[str]:
    """Paragraphs and list items of Markdown, without code and tables."""
    page = re.sub(r"```.*?```", "", page, flags=re.S)
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\|)", page):
        if not part.lstrip().startswith("|"):
            yield " ".join(part.split())


def test_sentences_are_told_apart() -> None:
    assert sentences(
        "Train a LoRA. no pictures\nare needed\n\nUse 0.5, e.g. as Eq. 2: it ends."
    ) == [
        "Train a LoRA.",
        "no pictures are needed",
        "Use 0.5, e.g. as Eq. 2: it ends.",
    ]
    assert long(iter(["a " * 25, "b " * 26])) == [("b " * 26).strip()]


def test_help_is_short() -> None:
    found = list(told(build_parser()))
    assert len(found) > 150
    assert long(iter(found)) == []


def test_settings_are_told_shortly() -> None:
    helps = (about.help for m in methods().values() for about in m.settings.about().values())
    assert long(helps) == []


def test_tooltips_are_short() -> None:
    """Of all nodes; a test of the host's holds the file to the nodes."""
    found = list(leaves(json.loads(LOCALE.read_text(encoding="utf-8"))))
    assert len(found) > 200
    assert long(iter(found)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_short(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert len(list(prose(page))) > 3
    assert long(prose(page)) == []
