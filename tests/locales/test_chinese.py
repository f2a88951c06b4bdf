"""The Chinese of what the host leaves in English: complete, and with the same blanks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ZH = ROOT / "locales" / "zh"
SENTENCES: dict[str, str] = json.loads((ZH / "sentences.json").read_text("utf-8"))
MAIN: dict[str, Any] = json.loads((ZH / "main.json").read_text("utf-8"))
WORDS: dict[str, dict[str, str]] = MAIN["eraseanything"]
# What no graph comes to: the command line, its benchmark, and a cluster.
ELSEWHERE = ("cli/", "evaluate/attacks/", "evaluate/report/", "evaluate/suites/", "cluster.py")
BLANK = r"\{(\d+)\}"


def template(node: ast.expr, blanks: list[ast.expr]) -> str:
    """What an expression says, with numbered blanks for what it does not know."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left, blanks) + template(right, blanks)
        case ast.JoinedStr(values=values):
            return "".join(template(value, blanks) for value in values)
    blanks.append(node)
    return f"{{{len(blanks) - 1}}}"


def errors() -> Iterator[str]:
    """The sentence of every EraseError that a node may raise."""
    core, nodes = ROOT / "erase_core", ROOT / "nodes"
    for path in (*core.rglob("*.py"), *nodes.rglob("*.py")):
        place = path.relative_to(core if path.is_relative_to(core) else nodes).as_posix()
        if path.is_relative_to(core) and place.startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "EraseError":
                yield template(node.args[0], [])


def words_of_templates() -> Iterator[str]:
    """Titles and paragraphs of all our templates, less what they say in Chinese themselves."""
    for path in sorted((ROOT / "workflows").glob("*.json")):
        graph: dict[str, Any] = json.loads(path.read_text("utf-8"))
        titled = [*graph["groups"], *(node for node in graph["nodes"] if node.get("title"))]
        yield from (re.sub(r"^\d+ · ", "", item["title"]) for item in titled)
        for node in graph["nodes"]:
            if node["type"] == "MarkdownNote":
                yield from (p for p in node["widgets_values"][0].split("\n\n") if p[:3] != "中文：")


def test_every_error_of_a_node_is_known() -> None:
    found = {text for text in errors() if re.search("[A-Za-z]", re.sub(BLANK, "", text))}
    assert len(found) > 200
    assert found - SENTENCES.keys() == set()


def test_a_sentence_has_no_blank_that_its_english_lacks() -> None:
    for english, chinese in SENTENCES.items():
        numbers = re.findall(BLANK, english)
        assert numbers == [str(place) for place in range(len(numbers))], english
        assert set(re.findall(BLANK, chinese)) <= set(numbers), english
        chinese.format(*numbers)  # no other braces


def test_chinese_is_punctuated_as_chinese() -> None:
    """Half-width marks stand only between what is not Chinese, such as numbers and file names."""
    told = [*SENTENCES.values(), *WORDS["options"].values(), *WORDS["templates"].values()]
    narrow = r"[\u4e00-\u9fff][,;:!?(]|[,;:!?)][\u4e00-\u9fff]"
    assert [text for text in told if re.search(narrow, text)] == []


def test_every_word_of_the_templates_is_known() -> None:
    """As web/chinese.js puts them together."""
    patterns = [
        re.compile(
            r"(?:`[^`]+`|\*\*[^*]+\*\*|\d+)".join(map(re.escape, re.split(r"\{\d\}", english)))
        )
        for english in sorted(WORDS["templates"], key=len, reverse=True)
    ]
    for text in set(words_of_templates()):
        rest = text
        while rest:
            found = next(filter(None, (pattern.match(rest) for pattern in patterns)), None)
            assert found, f"no Chinese in locales/zh/main.json for: {rest}"
            rest = rest[found.end() :].lstrip()
