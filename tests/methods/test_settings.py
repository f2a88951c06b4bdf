"""A setting is written once: what it says of itself, and what is made from it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from erase_core.cli.settings import add_settings
from erase_core.errors import EraseError
from erase_core.methods.base import methods
from erase_core.settings import Settings, read_pairs, setting

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools" / "docs"))

from settings import page  # noqa: E402


@dataclass(frozen=True)
class Toy(Settings):
    rate: float = setting(0.1, "how fast", low=0, high=1)
    count: int = setting(3, "how many", low=1, high=9)
    words: tuple[str, ...] = setting(("a",), "which")
    kind: str = setting("x", "which kind", choices=("x", "y"))
    side: int = setting(32, "how wide", low=16, high=4096, step=16, unit="pixels")
    weight: float = setting(1.0, "how much", low=0, high=1e6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rate": 2.0}, "rate must be a number from 0 to 1"),
        ({"rate": float("nan")}, "rate must be a number"),
        ({"count": 2.5}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"words": ()}, "words names nothing"),
        ({"kind": "z"}, "kind must be one of x, y"),
        ({"rat": 0.2}, "did you mean rate"),
    ],
)
def test_what_cannot_be_is_one_sentence(values: dict[str, object], says: str) -> None:
    with pytest.raises(EraseError, match=says) as caught:
        Toy().changed(values)
    assert "\n" not in str(caught.value)


def test_settings_become_json_and_come_back() -> None:
    toy = Toy(rate=0.5, words=("a", "b"))
    assert Toy.from_dict(toy.to_dict()) == toy


def test_pairs_are_read_as_the_setting_wants_them() -> None:
    assert read_pairs(Toy, ["rate=1e-3", "words=a,b", "count=4"]) == {
        "rate": 1e-3,
        "words": ("a", "b"),
        "count": 4,
    }
    for pair in ("rate=fast", "count=", "speed=1"):
        with pytest.raises(EraseError):
            read_pairs(Toy, [pair])


def test_help_tells_the_limits() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawTextHelpFormatter)
    add_settings(parser, Toy)
    shown = parser.format_help()
    for line in (
        "how fast; 0 to 1 (default 0.1)",
        "which kind; x or y (default x)",
        "how wide; 16 to 4,096 pixels in steps of 16 (default 32)",
        "how much; from 0 (default 1.0)",
        "which (default a)",
    ):
        assert line in shown


def test_every_setting_of_every_method_says_what_it_does() -> None:
    for method in methods().values():
        for name, about in method.settings.about().items():
            assert about.help, (method.name, name)


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()
