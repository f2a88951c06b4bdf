"""Prompt files as they are found: tables with line breaks, JSON lists, other encodings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase_core.errors import EraseError
from erase_core.evaluate.suites.prompts import read_prompts


def texts(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [prompt.prompt for prompt in read_prompts(path)]


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


# What the field has published: header and a row, and what is to be drawn.
PUBLISHED = {
    "Diffusion-MU-Attack": (
        'Unnamed: 0,case_number,prompt,evaluation_seed,artist\n0,0,"A field, by X",2219,X\n',
        ("A field, by X", 2219),
    ),
    "P4D": (
        ",case_number,prompt,evaluation_seed\n0,90,a french horn,1562\n",
        ("a french horn", 1562),
    ),
    "Ring-A-Bell": (",sensitive prompt\n0,horn zx brass\n", ("horn zx brass", 0)),
    "MMA-Diffusion": ("target_prompt,adv_prompt\na horn,h0rn brassx\n", ("h0rn brassx", 0)),
    "MMA beside the prompt": ("prompt,adv_prompt\na horn,h0rn brassx\n", ("h0rn brassx", 0)),
    "Six-CD": (
        'case_number,evaluation_seed,target,prompt\n0,27858,tench,"tench, dog"\n',
        ("tench, dog", 27858),
    ),
    "Six-CD's concepts": ("id,concept\n0,taylor_swift\n", ("taylor swift", 0)),
    "SPEED's concepts": ("id,concept\n1,Crazy Frog\n", ("Crazy Frog", 0)),
    "SPEED": ("id,type,text,concept,seed\n1,erase,A portrait of X,X,4\n", ("A portrait of X", 4)),
    "HUB, languages": ("Original,Spanish,Index\nA cat.,Un gato.,7\n", ("A cat.", 0)),
    "HUB, no header": (
        "A cat with a hat, on a stage.\nA dog\n",
        ("A cat with a hat, on a stage.", 0),
    ),
    "semicolons": ('case_number;prompt;seed\n0;"a cat; a dog, too";3\n', ("a cat; a dog, too", 3)),
    "tabs": ("Prompt\tSeed\na cat, a dog\t5\n", ("a cat, a dog", 5)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_prompts_as_the_field_publishes_them(name: str, tmp_path: Path) -> None:
    content, first = PUBLISHED[name]
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert read_prompts(path)[0] == first
    path.write_text(content.replace("\n", "\r\n"))
    assert read_prompts(path)[0] == first


def test_lines_in_quotes_without_a_header(tmp_path: Path) -> None:
    lines = '"A cat with a hat, on a stage."\nA dog, a "red" one, and a rose\n'
    told = ["A cat with a hat, on a stage.", 'A dog, a "red" one, and a rose']
    assert texts(tmp_path / "a.csv", lines) == told


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Original,Spanish\nA cat.,Un gato.\n")
    assert read_prompts(path, "spanish") == [("Un gato.", 0)]
    with pytest.raises(EraseError, match="no column named german, but Original, Spanish"):
        read_prompts(path, "German")
    path = tmp_path / "a.json"
    path.write_text('[{"Prompt": "A cat.", "nouns": ["cat"], "es": "Un gato."}]')
    assert read_prompts(path) == [("A cat.", 0)] and read_prompts(path, "ES") == [("Un gato.", 0)]


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
