"""Prompt files as they are found: tables with line breaks, JSON lists, other encodings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase_core.errors import EraseError
from erase_core.evaluate.suites.prompts import read_prompts


def texts(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [prompt.text for prompt in read_prompts(path)]


def test_a_quoted_line_break_parts_two_words(tmp_path: Path) -> None:
    table = 'prompt,seed\r\n"tiger on\na red",7\r\n"two\r\nroses, ""red""",\r\n'
    path = tmp_path / "a.csv"
    assert texts(path, table) == ["tiger on a red", 'two roses, "red"']
    assert [prompt.seed for prompt in read_prompts(path)] == [7, 1]


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
def test_a_json_list_is_a_list_of_prompts(name: str, tmp_path: Path) -> None:
    listed = json.dumps(["a cat", "a\nrose", ""], indent=1)
    assert texts(tmp_path / name, listed) == ["a cat", "a rose"]
    rows = json.dumps([{"prompt": "a cat", "seed": 5}, {"prompt": "a rose"}])
    assert texts(tmp_path / name, rows) == ["a cat", "a rose"]
    assert [prompt.seed for prompt in read_prompts(tmp_path / name)] == [5, 1]


def test_cocos_captions_and_json_lines(tmp_path: Path) -> None:
    coco = {"images": [], "annotations": [{"id": 3, "caption": "a cat"}]}
    assert texts(tmp_path / "coco.json", json.dumps(coco)) == ["a cat"]
    assert texts(tmp_path / "a.jsonl", '{"text": "a cat"}\n\n"a rose"\n') == ["a cat", "a rose"]


def test_a_prompt_in_brackets_is_a_prompt(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.txt", "[cat] on a mat\n\n[dog]\n") == ["[cat] on a mat", "[dog]"]
    assert [prompt.seed for prompt in read_prompts(tmp_path / "a.txt")] == [0, 2]


def test_encodings_that_say_so_are_read(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert texts(tmp_path / "a.txt", "a café\n".encode(encoding)) == ["a café"]


@pytest.mark.parametrize("told", ["-1", "1e3", "9" * 30, "²", "x", ""])
def test_a_seed_that_is_none_is_the_row(told: str, tmp_path: Path) -> None:
    texts(tmp_path / "a.csv", f"prompt,seed\na cat,{told}\n")
    assert read_prompts(tmp_path / "a.csv")[0].seed == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", 'prompt\n"never closed\n', "is no CSV"),
        ("a.csv", b"prompt\n" + b"x" * 200_000, "is no CSV"),
        ("a.csv", "words\na cat\n", "no column named prompt"),
        ("a.csv", "prompt\n\n", "There is no prompt"),
        ("a.json", "[", "as JSON"),
        ("a.json", "[" * 100_000, "nested too deep"),
        ("a.json", "5", "no list of prompts"),
        ("a.json", '["a cat", 5]', "no list of prompts"),
        ("a.json", '[{"image": 1}]', "no list of prompts"),
        ("a.json", '["\\ud800"]', "as JSON"),
        ("a.txt", "a café".encode("latin-1"), "no text in UTF-8"),
        ("a.txt", b"a\0b", "no text in UTF-8"),
        ("a.txt", "", "There is no prompt"),
    ],
)
def test_what_is_no_list_of_prompts_is_one_sentence(
    name: str, content: str | bytes, says: str, tmp_path: Path
) -> None:
    with pytest.raises(EraseError, match=says):
        texts(tmp_path / name, content)
