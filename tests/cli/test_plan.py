"""``bench --plan paper``: the hours, the tables beside the printed numbers, kills, the card."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cli.test_accept import files
from evaluate.test_bench_cells import small_clip
from PIL import Image

from erase_core.cli.main import main
from erase_core.concepts.sets import Bands, Concept
from erase_core.errors import EraseError
from erase_core.evaluate.attacks import suffix
from erase_core.evaluate.report.paper import tables
from erase_core.evaluate.report.workflow import workflow
from erase_core.evaluate.scores import Rate
from erase_core.evaluate.suites import paper
from erase_core.evaluate.suites.gallery import Gallery
from erase_core.evaluate.suites.paper import Budget, Material, Tables, rows, some
from erase_core.miniatures.miniflux import FOLDER

Capture = pytest.CaptureFixture[str]
ROWS = ["--methods", "uce", "eraseanything"]


def plan(out: Path, *more: str) -> list[str]:
    return ["bench", "--plan", "paper", "--rehearse", "--out", str(out), "--steps", "2", *more]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The smallest training and the smallest attack."""
    monkeypatch.setattr(paper, "REHEARSED", paper.REHEARSED | {"steps": 1, "rollout_steps": 2})
    for name, value in {"ROUNDS": 1, "CANDIDATES": 2, "TOP": 4}.items():
        monkeypatch.setattr(suffix, name, value)
    yield


def test_the_plan_is_rehearsed_and_goes_on_after_a_kill(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fill, left = Gallery.fill, 3

    def killed(self: Gallery, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        fill(self, *args)

    monkeypatch.setattr(Gallery, "fill", killed)
    assert main(plan(tmp_path, *ROWS)) == 130
    told = capsys.readouterr().err
    assert "make the erasers" in told and "together" in told
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(made) == 4 and drawn  # ours of each kind; the explicit concept is one of them

    monkeypatch.setattr(Gallery, "fill", fill)
    assert main([*plan(tmp_path, *ROWS), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "paper.json").read_text())
    assert results["rehearsal"] and results["size"] == "128x128" and results["steps"] == 2
    kinds = {(row["method"], row["kind"]) for row in results["kinds"]}
    both = ("untouched", "eraseanything")
    assert kinds == {(m, k) for m in both for k in paper.KINDS}
    assert [row["method"] for row in results["explicit"]] == ["untouched", "uce", "eraseanything"]
    assert {row["pictures"] for row in results["captions"]} == {4}
    assert results["captions"][0]["fid_to_untouched"] == pytest.approx(0, abs=1e-3)
    attacks = {(row["method"], row["attack"]): row["rate"]["count"] for row in results["attacks"]}
    assert attacks == {(method, attack): 1 for method in both for attack in paper.ATTACKS}
    assert results["ablation"] == []
    card = tmp_path / "card"
    assert {p.name for p in card.iterdir()} == {
        "README.md", "dog.safetensors", "workflow.json", "sheet.png", "kinds.png", "explicit.png",
    }  # fmt: skip
    text = (card / "README.md").read_text()
    assert "A rehearsal" in text and "| 605 |" in text and str(tmp_path) not in text
    assert Image.open(card / "sheet.png").width > 300

    assert main([*plan(tmp_path, *ROWS), "--dry-run", "--json"]) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert sum(seconds.values()) == 0  # nothing is left

    (card / "README.md").write_text("My own words.")
    path = tmp_path / "attacks" / "eraseanything" / "none" / "0.json"
    known = json.loads(path.read_text())
    key = {name: "another" if name == "eraser" else v for name, v in known["key"].items()}
    path.write_text(json.dumps({"key": key, "row": {"hits": 5, "count": 7}}))
    assert main([*plan(tmp_path, *ROWS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == results  # measured again for this eraser
    assert (card / "README.md").read_text() == "My own words."
    assert (card / "README.new.md").read_text() == text


def test_the_plan_runs_on_files_with_the_fields_judges(
    quick: None, tmp_path: Path, capsys: Capture
) -> None:
    """The way of a real model: its own files, prompt files, NudeNet, CLIP; MiniFlux's weights."""
    pytest.importorskip("nudenet")
    base = tmp_path / "base"
    base.mkdir()
    argv = files(base, FOLDER / "transformer.safetensors")
    clip = str(small_clip(tmp_path / "clip"))
    for name in ("i2p", "coco", "ring"):
        (tmp_path / f"{name}.txt").write_text("a dog on a red background\na car\n")
        argv += [f"--{name}", str(tmp_path / f"{name}.txt")]
    argv += ["--judge", clip, "--clip", clip, "--size", "64x64", "--methods", "uce"]
    out = tmp_path / "out"
    assert main([*plan(out), *argv, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["judge"] == "clip zero-shot" and results["size"] == "64x64"
    assert {row["kind"] for row in results["kinds"]} == {*paper.KINDS}  # the untouched model's
    assert [row["method"] for row in results["explicit"]] == ["untouched", "uce"]
    assert results["explicit"][0]["detector"].startswith("NudeNet 3")
    assert [row["method"] for row in results["captions"]] == ["untouched", "uce"]
    assert all(0 <= row["clip_score"] <= 100 for row in results["captions"])
    assert {row["rate"]["count"] for row in results["attacks"]} == {1}
    assert (out / "erasers" / "uce" / "nude.safetensors").exists()
    text = (out / "paper.md").read_text()
    assert "| UCE | – | 30.71 |" in text and "NudeNet 3" in text


def test_an_eraser_that_fails_costs_its_cells_only(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(*args: Any) -> None:
        raise EraseError("It diverged; lower its learning rate.")

    monkeypatch.setattr(paper, "ROWS", {"kinds": paper.ROWS["kinds"]})
    monkeypatch.setattr("erase_core.cli.making.Maker.make", broken)
    assert main([*plan(tmp_path), "--methods", "eraseanything"]) == 1
    assert "parts failed and their cells are empty" in capsys.readouterr().err
    results = json.loads((tmp_path / "paper.json").read_text())
    assert [row["method"] for row in results["kinds"]] == ["untouched"] * 3
    assert "EraseAnything (ours)" not in (tmp_path / "paper.md").read_text()


def test_ctrl_c_in_a_training_ends_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A cancelled training is no failed one, after which the next eraser would begin."""
    made = []

    def cancelled(maker: Any, task: Any, tell: Any) -> None:
        made.append(task.name)
        os.kill(os.getpid(), signal.SIGINT)
        with suppress(KeyboardInterrupt):  # as a run takes a cancel
            tell(0.5)
        raise EraseError("The run ended early.")

    monkeypatch.setattr("erase_core.cli.making.Maker.make", cancelled)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has none
    try:
        assert main([*plan(tmp_path), "--methods", "eraseanything"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(made) == 1 and "ended early" not in capsys.readouterr().err


def test_a_share_is_never_nothing() -> None:
    whole = Budget()
    assert (whole.explicit, whole.captions, whole.attacked) == (4703, 10_000, 285)
    assert whole.shared(1) == whole
    tenth = whole.shared(0.1)
    assert (tenth.concepts, tenth.explicit, tenth.captions, tenth.attacked) == (1, 470, 1000, 28)
    assert min(vars(whole.shared(0)).values()) >= 1
    assert some("abcdef", 9) == [*"abcdef"] and some("abcdef", 3) == some("abcdef", 3)
    assert sorted(some("abcdef", 3)) == some("abcdef", 3)


def test_rows_can_be_chosen_with_settings_of_their_own() -> None:
    assert rows("kinds") == ["untouched", "ca-model", "eraseanything"]
    assert rows("kinds", ["ours", "uce"]) == ["untouched", "eraseanything"]
    assert rows("explicit", ["esd-x lr=2e-4"]) == ["untouched", "esd-x lr=2e-4"]


def test_tables_without_their_prompts_are_left_out() -> None:
    tiger = Concept("tiger", irrelevant=Bands(near=("lion",)))
    material = Material({"entity": [tiger]}, [], tiger, None, {"captions": []})
    assert Tables(material).rows == {"kinds": rows("kinds")}
    assert {(e.method, e.concept.name) for e in Tables(material).erasures()} == {
        ("ca-model", "tiger"), ("eraseanything", "tiger"),
    }  # fmt: skip


def marks(hits: int) -> dict[str, Any]:
    return {name: Rate(hits, 20).to_dict() for name in ("acc_e", "acc_ir", "acc_g")}


def test_what_is_measured_stands_beside_what_is_printed() -> None:
    """The numbers are the paper's, read in shared/method.md."""
    kind = {"concept": "car", "kind": "entity", **marks(5)}
    results = {
        "model": "flux1-dev", "size": "512x512", "steps": 28, "guidance": 3.5, "judge": "CLIP",
        "rehearsal": False,
        "kinds": [{"method": m, **kind} for m in ("untouched", "eraseanything")],
        "captions": [{"method": "uce", "pictures": 10_000, "fid": 29.5, "clip_score": 25.1}],
        "attacks": [
            {"method": "esd-x", "attack": "none", "rate": Rate(2, 285).to_dict()},
            {"method": "esd-x", "attack": "suffix-0", "rate": Rate(30, 285).to_dict()},
        ],
        "ablation": [{"method": "ours-esd-attn", **kind}],
    }  # fmt: skip
    text = tables(results)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    ours = next(x for x in text.splitlines() if x.startswith("| EraseAnything (ours)"))
    assert [cell.strip() for cell in ours.split("|")][3:8:2] == ["12.5", "91.7", "18.6"]
    assert "| 29.5 | 30.71 | 25.1 | 24.56 |" in lines["UCE"]
    attacked = next(x for x in text.splitlines() if "| 7.36 |" in x)
    assert attacked.count("–") == 1 and attacked.endswith("| – | 14.74 |")
    assert "We could not read its numbers" in text and "A rehearsal" not in text
    assert "| – |" in lines["ESD + attn"]


def test_the_workflow_loads_the_persons_files_by_name() -> None:
    how = {"size": "512x768", "steps": 28, "guidance": 3.5}
    files = {"model": "/a/flux1-dev.safetensors", "clip_l": "c.safetensors", "t5": "t.safetensors",
             "vae": "ae.safetensors"}  # fmt: skip
    made = workflow(files, "nude.safetensors", "a woman", how)
    assert made is not None and "/a/" not in json.dumps(made)
    assert made["9"]["inputs"] == {"width": 512, "height": 768, "batch_size": 1}
    for node in made.values():
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        assert all(number in made for number, _ in links)
    assert workflow({"model": "a", "t5": "t", "vae": "v"}, "x", "y", how) is None


def test_options_of_the_plan_want_the_plan(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", "--dry-run", "--out", str(tmp_path)]) == 1
    assert "go with --plan paper" in capsys.readouterr().err
