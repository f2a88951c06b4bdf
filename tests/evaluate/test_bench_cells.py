"""Cells of the benchmark: what is asked, drawn, kept, and measured of prompt files."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_model
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.evaluate.exam import Exam
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.report.sheets import HEIGHT, SHOWN, strip, write_sheets
from erase_core.evaluate.suites.cell import MADE, Bench, Cell
from erase_core.evaluate.suites.prompts import Prompt, read_prompts
from erase_core.evaluate.suites.suite import SETS, SEVERAL, chosen
from erase_core.miniatures.miniflux import FOLDER
from erase_core.miniatures.miniflux import load as load_miniflux
from erase_core.miniatures.miniflux.cases import synonym_cases
from erase_core.miniatures.miniflux.concepts import concept as concept_of
from erase_core.miniatures.miniflux.concepts import held_out_synonyms
from erase_core.miniatures.miniflux.world import COLOURS, THINGS

Capture = pytest.CaptureFixture[str]


def main(argv: list[str]) -> int:
    from erase_core.cli.main import main as command

    return command(argv)


def bench(folder: Path) -> Bench:
    """For what needs no picture."""
    return Bench(make_model(), RecogniserJudge(), folder, 2, lambda label, total: lambda done: None)


def test_concepts_joined_by_a_plus_are_one_cell(tmp_path: Path) -> None:
    cells = chosen(["eraseanything"], ["dog", "dog+rose+bus"], [0]).cells
    assert [cell.concepts for cell in cells] == [("dog",), ("dog", "rose", "bus")]
    assert [cell.title for cell in cells] == ["dog", "dog and 2 more"]
    assert [bench(tmp_path).kind(cell) for cell in cells] == ["entity", "several"]


@pytest.mark.parametrize("size", SETS)
def test_a_set_keeps_nothing_that_it_erases(size: int, tmp_path: Path) -> None:
    concepts = bench(tmp_path).concepts(Cell("eraseanything", SEVERAL[:size])).concepts
    assert tuple(concept.name for concept in concepts) == SEVERAL[:size]
    assert not {word for concept in concepts for word in concept.irrelevant_words()} & set(
        SEVERAL[:size]
    )
    assert all(concept.irrelevant_words() for concept in concepts)


def test_an_exam_of_several_asks_for_none_of_them_again() -> None:
    names = ("dog", "rose", "car")
    exam = RecogniserJudge().exam(ConceptSet.together(map(concept_of, names)), 300)
    for role in ("near", "other"):
        shown = {THINGS[i].name for case in exam.roles[role] for i in case.scene.things}
        assert exam.roles[role] and not shown & set(names)
    assert {case.concept for case in exam.roles["erased"]} == set(names)
    assert {case.concept for case in exam.roles["held_out"]} == set(names)
    words = {word for name in names for word in held_out_synonyms(name)}
    assert all(any(w in case.prompt for w in words) for case in exam.roles["held_out"])


def test_an_exam_of_several_colours_or_relations() -> None:
    judge = RecogniserJudge()
    blue = judge.exam(ConceptSet.together(map(concept_of, ("blue", "pink"))), 40)
    assert {case.concept for case in blue.roles["near"]} == {*COLOURS} - {"blue", "pink"}
    assert not {case.scene.ground for case in blue.roles["other"]} & {"blue", "pink"}
    assert "held_out" not in blue.roles and len(blue.roles["erased"]) == 40
    sides = judge.exam(ConceptSet.together(map(concept_of, ("above", "kissing"))), 40)
    assert {case.concept for case in sides.roles["held_out"]} == {"below"}
    assert not {case.concept for case in sides.roles["near"]} & {"above", "below", "kissing"}
    with pytest.raises(EraseError, match="one kind"):
        judge.exam(ConceptSet.together(map(concept_of, ("blue", "dog"))), 4)


def test_a_sheet_shows_every_cell_under_its_concept(tmp_path: Path) -> None:
    """Pictures of one colour for each role and cell are found again where they belong."""
    exam = Exam(
        "dog", {role: [synonym_cases("dog", ["dog"], 1, 0)[0]] * 2 for role in (*SHOWN, "x")}
    )
    files, colours = {}, {}
    for n, (method, concept) in enumerate(
        [("eraseanything", "dog"), ("eraseanything", "rose"), ("uce", "rose")]
    ):
        pictures = torch.full((8, HEIGHT, HEIGHT, 3), 250, dtype=torch.uint8)
        pictures[::2, ..., :2] = 20 * n
        pictures[::2, ..., 2] = torch.tensor([10, 100, 200, 250])[:, None, None]
        path = tmp_path / f"{method} {concept}.png"
        strip(exam, pictures).save(path)
        files[path] = {"method": method, "concepts": [concept], "kind": "entity"}
        colours[method, concept] = [(20 * n, 20 * n, blue) for blue in (10, 100, 200)]
    (sheet,) = write_sheets(tmp_path, files)
    assert sheet.name == "sheet-entity.png"
    pixels = np.asarray(Image.open(sheet))
    places = {}
    for key, wanted in colours.items():
        for part, colour in enumerate(wanted):
            ys, xs = (pixels == colour).all(-1).nonzero()
            assert len(ys) == HEIGHT**2
            places[(*key, part)] = (ys.min(), xs.min())
    assert (
        places["eraseanything", "dog", 0][0]
        == places["eraseanything", "rose", 2][0]
        < places["uce", "rose", 0][0]
    )
    assert places["eraseanything", "rose", 1][1] == places["uce", "rose", 1][1]
    assert (
        places["eraseanything", "dog", 0][1]
        < places["eraseanything", "dog", 1][1]
        < places["eraseanything", "rose", 0][1]
    )


def test_a_saved_eraser_sits_a_longer_exam(tmp_path: Path, capsys: Capture) -> None:
    """The command: a cell is kept; asked for more pictures, only they are new."""
    options = ["bench", "--methods", "uce", "--concepts", "dog", "--out", str(tmp_path), "--json"]

    def cell(count: int) -> dict[str, Any]:
        assert main([*options, "--exam", str(count)]) == 0
        (found,) = json.loads(capsys.readouterr().out)["cells"]
        return dict(found)

    first = cell(2)
    eraser = tmp_path / "cells" / "uce" / "dog 0.safetensors"
    made = eraser.stat().st_mtime_ns
    assert cell(2) == first and first["acc_e"]["count"] == 2 and first["acc_e"]["hits"] == 0
    more = cell(3)
    assert more["acc_e"]["count"] == 3 and more["pictures"] > first["pictures"]
    assert eraser.stat().st_mtime_ns == made
    assert {more[name] == first[name] for name in MADE} == {True}
    assert main([*options, "--exam", "3", "--attacks", "misspelling", "paraphrase"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["attack"] for row in found["attacks"]] == ["misspelling", "paraphrase"]
    assert found["cells"] == [more]
    assert (tmp_path / "results.md").exists() and (tmp_path / "sheet-entity.png").exists()
    eraser.unlink()
    assert cell(2) == first
    assert main([*options, "--exam", "1"]) == 1
    assert "two pictures or more" in json.loads(capsys.readouterr().out)["error"]


def test_a_frechet_distance_is_that_of_the_eraser_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erase_core.evaluate.suites.cell.FRECHET", 4)
    options = ["--methods", "uce", "--concepts", "dog", "--exam", "2", "--fid"]

    row = tmp_path / "frechet" / "uce" / "dog 0.json"

    def fid() -> float:
        assert main(["bench", "--out", str(tmp_path), *options]) == 0
        return float(json.loads(row.read_text())["fid"])

    strong = fid()
    assert fid() == strong
    eraser = tmp_path / "cells" / "uce" / "dog 0.safetensors"
    WeightEdit.zeros(load_miniflux().tree, ["txt_in"]).save(eraser)
    row.unlink()
    assert fid() != strong


def test_prompt_files_keep_their_seeds(tmp_path: Path) -> None:
    table = tmp_path / "i2p.csv"
    table.write_text('prompt,evaluation_seed\n"a cat, sitting",7\n,3\na dog,\n')
    assert read_prompts(table) == [Prompt("a cat, sitting", 7), Prompt("a dog", 1)]
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\n\na dog\n")
    assert read_prompts(lines) == [Prompt("a cat", 0), Prompt("a dog", 2)]
    table.write_text("words\na cat\n")
    with pytest.raises(EraseError, match="no column named prompt"):
        read_prompts(table)
    with pytest.raises(EraseError, match="There is no file"):
        read_prompts(tmp_path / "none.txt")


def small_clip(folder: Path) -> Path:
    """A CLIP model with random weights in transformers' layout."""
    text = {"vocab_size": 2000, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "patch_size": 32}
    heads = {"num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text | heads, vision_config=vision | heads, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(FOLDER / "clip_l_tokenizer").save_pretrained(folder)
    return folder


def test_a_prompt_file_is_drawn_and_measured(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("nudenet")
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a rose on a blue background\na pizza\n")
    lora = EraserLora.create(load_miniflux().slots(["text.v"]))
    torch.nn.init.normal_(lora.parameters()[-1])
    lora.save(tmp_path / "strong.safetensors")
    options = ["--suite", "i2p", "--prompts", str(prompts), "--out", str(out), "--steps", "2"]
    options += ["--clip", str(small_clip(tmp_path / "clip"))]
    assert main(["bench", *options, "--loras", str(tmp_path / "strong.safetensors"), "--json"]) == 0
    plain, strong = json.loads(capsys.readouterr().out)["rows"]
    assert plain["eraser"] == "untouched" and plain["exposed"] == 0 and plain["pictures"] == 2
    assert (plain["any"]["hits"], plain["any"]["count"]) == (0, 2) and plain["threshold"] == 0.6
    assert plain["detector"] == f"NudeNet {version('nudenet')}" and len(plain["classes"]) == 9
    assert plain["size"] == "128x128" and plain["exposed_interval"] == [0, 0]
    assert plain["clip_distance"] == pytest.approx(0, abs=1e-6)
    assert strong["clip_distance"] > 1e-6
    assert 0 <= plain["clip_score"] <= 100
    assert main(["bench", "--suite", "coco", "--prompts", str(prompts)]) == 1
    assert "--clip" in capsys.readouterr().err
