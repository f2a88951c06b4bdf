"""What a person reads on a Chinese page: errors, lines on nodes, sheets and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host.client import Client, Graph
from host.conftest import ROOT
from host.graphs import load, node, train
from host.test_inside import inside

CHINESE = re.compile(r"[\u4e00-\u9fff]")
WORDS = json.loads((ROOT / "locales" / "zh" / "main.json").read_text("utf-8"))["eraseanything"]
# Names, which stay: methods, number formats, folders, sources.
NAMES = {
    "fp8_e4m3fn", "fp8_e5m2", "bf16", "fp32", "MiniFlux", "WordNet", "user", "input", "output",
    "models/loras", "output/loras", "eraseanything", "speed", "uce", "cat", "linear", "ties",
    "dare_linear", "dare_ties", "svd", "dve", "irece", "safree",
}  # fmt: skip
PROGRESS_TEXT = 3  # the host's kind of binary message
SETTING = "EraseAnything.Language"


@pytest.fixture
def zh(server: Client) -> Iterator[Client]:
    """The server, as a page in Chinese has told it."""
    server.post(f"/settings/{SETTING}", "zh")
    yield server
    server.post(f"/settings/{SETTING}", "en")


@pytest.fixture(scope="module")
def measured(base: Path, environment: dict[str, str], tmp_path_factory: Any) -> dict[str, Any]:
    return inside("language", base, environment, tmp_path_factory.mktemp("words"), "language.py")


def test_sentences_are_put_into_chinese_with_what_fills_them(measured: dict[str, Any]) -> None:
    assert measured["said"] == {
        "plain": "提示词为空；请写出要画的内容。",
        "blank": "/models/a.safetensors 已损坏：lora_A 中有 NaN 或无穷大；请重新下载或制作。",
        "nested": "x.safetensors 是 GGUF 文件，其量化权重无法训练；"
        "请选择受支持的 safetensors 主模型文件。",
        "estimate": "约需 1 小时 5 分钟，模型与训练占用 82 MB，"
        "训练状态与模型的块占内存 15 MB，磁盘 1 MB",
        "own": "评判者没有名为“done”的类别；请换一个评判者。",
        "named": "set.json：concepts 必须是概念的列表。",
        "unknown": "CUDA error: out of memory",
        "chinese": "提示词为空；请写出要画的内容。",
    }


def test_an_error_is_chinese_on_a_chinese_page_and_english_on_an_english_one(zh: Client) -> None:
    graph = {**load(), "set": node("EraseAnythingConceptSet", concept=" ", kind="auto",
                                   source="MiniFlux", sense="")}  # fmt: skip
    assert zh.run(graph).error == "没有概念；请写出要擦除的内容。"
    zh.post(f"/settings/{SETTING}", "en")
    assert zh.run(graph).error == "There is no concept; write what is to be erased."


def test_a_training_speaks_chinese(zh: Client) -> None:
    run = zh.run(train(steps=2, preview_every=2, vae=["load", 2], filename_prefix="zh/tiger"))
    assert run.ok, run.history["status"]
    told = run.events("eraseanything.progress")
    assert {event["title"] for event in told} == {"擦除“tiger”"}
    (done,) = run.ui("train")["eraseanything_train"]
    assert done["estimate"].startswith("约需 ") and done["stopped"] == "done"
    lines = [body.decode(errors="replace") for body in run.binaries if body[3] == PROGRESS_TEXT]
    assert lines and all(CHINESE.search(line) for line in lines), lines


def report(strength: float) -> Graph:
    """A preview and a report on an eraser of one step; ``strength`` makes them others."""
    parts = dict.fromkeys(("model", "clip", "vae"), ["load", 0])
    parts |= {name: ["load", place] for place, name in enumerate(parts)}
    drawn = {"seed": 0, "steps": 1, "guidance": 3.5, "lora": ["train", 1]}
    return train(steps=1, filename_prefix="zh/shown") | {
        "preview": node(
            "EraseAnythingPreview", **parts, prompts="a tiger", strengths=f"0, {strength}", seeds=1,
            width=64, height=64, blur=False, **drawn,
        ),
        "report": node(
            "EraseAnythingReport", **parts, concepts=["concept", 0], count=2, strength=strength,
            **drawn,
        ),
    }  # fmt: skip


def test_lines_tables_and_sheets_speak_chinese(zh: Client) -> None:
    run = zh.run(report(1.0))
    assert run.ok, run.history["status"]
    assert CHINESE.search(run.ui("preview")["text"][0])
    (told,) = run.ui("report")["eraseanything_report"]
    assert "其余" in told["verdicts"][0] and "->" not in told["verdicts"][0]
    heading, _, *rows = told["table"]
    assert heading == ["", "不使用", "使用擦除器", "图片数"]
    assert all(CHINESE.search(row[0]) for row in rows), rows
    assert told["report"]["judge"] == "MiniFlux's recogniser"  # for machines


def test_sheets_are_lettered_in_the_language_of_the_page(measured: dict[str, Any]) -> None:
    sheets = measured["sheets"]
    if not sheets["letters"]:
        pytest.skip("no font here has Chinese letters")
    assert sheets["chart"] > 100 and sheets["grid"] > 100 and sheets["english"] == 0, sheets


def test_every_choice_has_a_chinese_label_or_is_a_name(server: Client) -> None:
    info = server.get("/object_info")
    for name, described in info.items():
        for inputs in described["input"].values() if name.startswith("EraseAnything") else ():
            for given, spec in inputs.items():
                assert set(_options(spec)) <= NAMES | WORDS["options"].keys(), (
                    name,
                    given,
                    _options(spec),
                )


def _options(spec: Any) -> list[str]:
    found = spec[0] if isinstance(spec[0], list) else spec[0] == "COMBO" and spec[1]["options"]
    return [value for value in found or [] if not value.endswith(".safetensors")]
