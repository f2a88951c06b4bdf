"""What newcomers read: help pages and translations."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.host.client import Client

ROOT = Path(__file__).parents[2]
SYNTAX = set("{}@|")  # has a meaning for the front end's translations


def texts(language: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def english(server: Client) -> dict[str, Any]:
    """The texts that the nodes themselves have."""
    spec = importlib.util.spec_from_file_location("locales_make", ROOT / "locales" / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.english(server.get("/object_info"))


def test_english_is_what_the_nodes_say(english: dict[str, Any]) -> None:
    assert texts("en") == english, "run locales/make.py"


def test_chinese_says_all_that_english_says(english: dict[str, Any]) -> None:
    assert _keys(texts("zh")) == _keys(english)
    for text in _leaves(texts("zh")):
        assert text and not SYNTAX & set(text)
    for node in texts("zh").values():
        for text in (node["description"], *(item["tooltip"] for item in node["inputs"].values())):
            assert any("\u4e00" <= letter <= "\u9fff" for letter in text), text


def test_every_node_has_a_help_page(english: dict[str, Any]) -> None:
    for name, node in english.items():
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text("utf-8")
        assert page.startswith(f"# {node['display_name']}\n")
        assert "## Tip\n" in page and "## When something goes wrong\n" in page
        chinese = (ROOT / "web" / "docs" / name / "zh.md").read_text("utf-8")
        assert chinese.startswith(f"# {texts('zh')[name]['display_name']}\n")


def test_help_pages_tell_every_input(english: dict[str, Any]) -> None:
    for name, node in english.items():
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text("utf-8")
        for key in node["inputs"]:
            told = (key, key.rstrip("1234"), key.replace("irrelevant", ""))
            assert any(f"**{text}" in page or f"`{text}" in page for text in told), (name, key)


def _keys(value: Any, path: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {path}
    return {key for name, item in value.items() for key in _keys(item, f"{path}/{name}")}


def _leaves(value: Any) -> list[str]:
    return (
        [text for item in value.values() for text in _leaves(item)]
        if isinstance(value, dict)
        else [value]
    )
