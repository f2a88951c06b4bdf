"""The command line, run in this process on MiniFlux with a handful of steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import erase_core.miniatures.miniflux as miniflux
from erase_core import __version__
from erase_core.cli import demo
from erase_core.cli.main import COMMANDS, main
from erase_core.cli.progress import Bar, clock
from erase_core.concepts.sets import ConceptSet
from erase_core.methods.base import find_method
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.miniatures.miniflux.concepts import concept
from erase_core.tensors import read_tensors, save_tensors
from erase_core.training.progress import Progress
from erase_core.training.save import free_name

NAMES = [command.__name__.rsplit(".", 1)[1] for command in COMMANDS]
SMALL = {"steps": 4, "batch": 2, "rollout_steps": 2, "erase_rollouts": 2, "keep_rollouts": 2}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's settings, but for a run of seconds."""
    balanced = miniflux.PRESETS["eraseanything"]["balanced"]["all"]
    small = dict.fromkeys(("balanced", "robust"), {"all": balanced | SMALL})
    monkeypatch.setattr(miniflux, "PRESETS", {"eraseanything": small})


def test_settings_follow_the_concepts() -> None:
    model, own = miniflux.load(), miniflux.PRESETS["eraseanything"]
    names = ("tiger", "car", "left of")
    thing, other, relation = (ConceptSet((concept(name),)) for name in names)

    def suited(concepts: ConceptSet, preset: str = "balanced") -> TrainSettings:
        return find_method("eraseanything").suited(model, concepts, preset)

    plain = TrainSettings(height=128, width=128).changed(own["balanced"]["all"])
    assert suited(thing) == plain
    assert suited(relation) == plain.changed(own["balanced"]["relationship"]) != plain
    assert suited(thing.merge(relation)).rollout_prompt == "null"
    two = suited(thing.merge(other))
    assert two == replace(plain, lr_low=1e-3).for_concepts(2)
    assert (two.steps, two.keep_rollouts) == (550, 80) and plain.for_concepts(1) == plain
    assert [plain.for_concepts(n).rank for n in (1, 5, 6, 20)] == [8, 8, 16, 32]
    robust = suited(thing, preset="")
    assert robust == plain.changed(own["robust"]["all"]) and robust.l_adv > 0


def train(out: Path, *more: str) -> int:
    return main(["train", "--concept", "cat", "--out", str(out), *more])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on standard error that is no progress."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("eraseanything: ")
    return lines[0]


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert f"eraseanything {name} " in out.split("examples:")[1]
    assert "--json" in out


def test_train_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"(default {TrainSettings().steps})" in out
    assert "(default add_q_proj add_k_proj)" in out


@pytest.mark.parametrize("name", TrainSettings.about())
def test_every_setting_is_an_option_as_it_says_of_itself(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about, flag = TrainSettings.about()[name], "--" + name.replace("_", "-")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{flag} " in told and about.help in told
    if about.kind in (int, float) and about.high < 2**62:
        out = tmp_path / "cat.safetensors"
        assert train(out, flag, str(2 * int(about.high))) == 1
        limits = f"from {about.low:,} to {about.high:,}"
        assert f"The setting {name} must be" in (line := one_line(capsys)) and limits in line
        assert not out.exists()


def test_the_command_line_starts_without_torch() -> None:
    heavy = "{'torch', 'PIL', 'transformers'}"
    code = f"import erase_core.cli.main, sys; assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
    command = [sys.executable, "-m", "erase_core", "--version"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out == f"eraseanything {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["paint"], ["train"], ["generate", "--out", "a.png"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: eraseanything" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["demo", "--concept", "unicorn"], "MiniFlux does not know"),
        (["train", "--concept", "unicorn", "--out", "u.safetensors"], "MiniFlux does not know"),
        (["train", "--concept", "cat", "--out", "cat.pt"], "must end in .safetensors"),
        (["train", "--concepts", "no.json", "--out", "a.safetensors"], "There is no file no.json"),
        (["train", "--resume", "no", "--out", "a.safetensors"], "There is no checkpoint in no"),
        (["generate", "--model", "no.safetensors", "--prompt", "a", "--out", "a.png"], "There is"),
        (["generate", "--lora", "no.safetensors", "--prompt", "a", "--out", "a.png"], "There is"),
        (["generate", "--device", "moon", "--prompt", "a", "--out", "a.png"], "no device moon"),
        (["inspect", "no.safetensors"], "There is no file"),
        (["concepts"], "Name a concept"),
        (["concepts", "tiger", "-k", "0"], "-k must be"),
        (["concepts", "crane", "tiger", "--sense", "crane.n.04"], "cannot share one --sense"),
    ],
)
def test_failures_are_one_sentence_and_exit_code_1(
    argv: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    assert says in one_line(capsys)


def test_failures_are_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "no.safetensors", "--json"]) == 1
    assert "no.safetensors" in json.loads(capsys.readouterr().out)["error"]


def test_what_nobody_foresaw_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(path: Path) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("erase_core.tensors.read_tensors", explode)
    assert main(["inspect", "a.safetensors"]) == 1
    assert "ZeroDivisionError: two lines" in one_line(capsys)
    monkeypatch.setenv("ERASE_DEBUG", "1")
    assert main(["inspect", "a.safetensors"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_existing_files_stay_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, argv in {
        "a.safetensors": ["train", "--concept", "cat"],
        "a.png": ["generate", "--prompt", "a cat"],
        "b.png": ["attention", "--prompt", "a cat", "--words", "cat"],
        "a.json": ["concepts", "tiger"],
    }.items():
        path = tmp_path / name
        path.write_text("mine")
        assert main([*argv, "--out", str(path)]) == 1
        assert "exists already" in one_line(capsys)
        assert path.read_text() == "mine"
    (tmp_path / "report.json").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "exists already" in one_line(capsys)


def test_concepts_writes_a_set_that_train_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rembrandt.json"
    assert main(["concepts", "Rembrandt", "-k", "2", "--out", str(path)]) == 0
    capsys.readouterr()
    (concept,) = ConceptSet.load(path).concepts
    assert concept.name == "Rembrandt"
    assert 1 <= len(concept.irrelevant.near) <= 2
    assert main(["concepts", "Rembrandt", "-k", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ConceptSet((concept,)).to_json()
    both = tmp_path / "both.json"
    assert main(["concepts", "Rembrandt", "Claude Monet", "--out", str(both)]) == 0
    capsys.readouterr()
    first, second = ConceptSet.load(both).concepts
    assert (first.name, second.name) == ("Rembrandt", "Claude Monet")
    assert not {"Rembrandt", "Claude Monet"} & {*first.irrelevant_words()}
    assert main(["concepts", "--list", "--json"]) == 0
    assert "Rembrandt" in json.loads(capsys.readouterr().out)["lists"]["artists"]


def test_several_concepts_are_erased_by_one_lora(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "three.safetensors"
    few = [x for name in SMALL for x in ("--" + name.replace("_", "-"), str(SMALL[name]))]
    assert main(["train", "--concept", "dog", "rose", "left of", "--out", str(out), *few]) == 0
    assert main(["inspect", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["metadata"]["erase.concepts"]
    assert [concept["name"] for concept in told["concepts"]] == ["dog", "rose", "left of"]


def test_train_inspect_and_draw(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, chart = tmp_path / "cat.safetensors", tmp_path / "cat.png"
    assert train(out, "--rank", "3", "--chart", str(chart), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["lora"], told["stopped"], told["steps"]) == (str(out), "done", SMALL["steps"])
    assert set(told["losses"]) == {"esd", "attn", "lora", "rsc"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.png", "cat.safetensors"]

    assert main(["inspect", str(out), "--model", "miniflux", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["warning"] is None
    assert about["metadata"]["erase.settings"]["rank"] == 3
    assert about["metadata"]["erase.concepts"]["concepts"][0]["name"] == "cat"
    assert all(size > 0 for size in about["change"].values())
    assert {min(shape) for shape in about["shapes"].values()} == {3}

    for more in ([], ["--lora", str(out)], ["--lora", str(out), "--strength", "0"]):
        picture = tmp_path / f"{len(more)}.png"
        argv = ["generate", "--prompt", "a cat", "--steps", "2", "--out", str(picture), *more]
        assert main(argv) == 0
    drawn = [(tmp_path / f"{n}.png").read_bytes() for n in (0, 2, 4)]
    assert drawn[0] == drawn[2] != drawn[1]

    argv = ["attention", "--prompt", "a cat and a car", "--words", "cat", "car", "--steps", "2"]
    argv += ["--lora", str(out), "--out", str(tmp_path / "words.png"), "--json"]
    capsys.readouterr()
    assert main(argv) == 0
    highest = json.loads(capsys.readouterr().out)["highest"]
    assert list(highest) == ["without", "with eraser"]
    assert all(0 < share < 1 for row in highest.values() for share in row.values())


@pytest.fixture
def as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model in its files' bfloat16, also where float32 would be faster."""
    monkeypatch.setattr("erase_core.api.fast_dtype", lambda device: torch.bfloat16)


@pytest.mark.usefixtures("as_stored")
def test_files_of_the_user_draw_what_the_bundled_ones_draw(tmp_path: Path) -> None:
    folder = miniflux.FOLDER
    argv = ["generate", "--prompt", "a cat", "--steps", "2", "--out"]
    assert main([*argv, str(tmp_path / "bundled.png")]) == 0
    files = {"--model": "transformer", "--clip-l": "clip_l", "--t5": "t5xxl", "--vae": "vae"}
    more = [x for flag, name in files.items() for x in (flag, str(folder / f"{name}.safetensors"))]
    more += ["--tokenizers", str(folder), "--t5-length", "64", "--size", "128x128"]
    assert main([*argv, str(tmp_path / "own.png"), *more]) == 0
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "bundled.png").read_bytes()


@pytest.mark.usefixtures("as_stored")
def test_a_pipelines_folder_is_all_it_takes(tmp_path: Path) -> None:
    """Its parts as diffusers names them."""
    argv = ["generate", "--prompt", "a cat", "--steps", "2", "--out"]
    assert main([*argv, str(tmp_path / "bundled.png")]) == 0
    folder, source = tmp_path / "pipeline", miniflux.FOLDER
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "t5xxl")):
        (folder / part).mkdir(parents=True)
        shutil.copy(source / f"{name}.safetensors", folder / part / "model.safetensors")
    for part, name in (("tokenizer", "clip_l_tokenizer"), ("tokenizer_2", "t5xxl_tokenizer")):
        shutil.copytree(source / name, folder / part)
    for part in ("transformer", "vae"):
        (folder / part).mkdir()
        weights = folder / part / "diffusion_pytorch_model.safetensors"
        shutil.copy(source / f"{part}.safetensors", weights)
    more = ["--model", str(folder), "--t5-length", "64", "--size", "128x128"]
    assert main([*argv, str(tmp_path / "own.png"), *more]) == 0
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "bundled.png").read_bytes()


def test_a_wrong_vae_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = miniflux.FOLDER
    files = {"--model": "transformer", "--clip-l": "clip_l", "--t5": "t5xxl", "--vae": "clip_l"}
    more = [x for flag, name in files.items() for x in (flag, str(folder / f"{name}.safetensors"))]
    argv = ["generate", "--prompt", "a", "--out", str(tmp_path / "a.png"), *more]
    assert main([*argv, "--tokenizers", str(folder)]) == 1
    assert "not Flux's autoencoder" in one_line(capsys)
    assert main([*argv[:-2], "--tokenizers", str(folder)]) == 1
    assert "name one with --vae" in one_line(capsys)


def test_inspect_warns_of_another_base(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cat.safetensors"
    assert train(out) == 0
    tensors, metadata = read_tensors(out)
    other = tmp_path / "other.safetensors"
    save_tensors(other, tensors, metadata | {"erase.base": "dev", "erase.base_sha256": "0" * 64})
    capsys.readouterr()
    assert main(["inspect", str(other), "--model", "miniflux"]) == 0
    captured = capsys.readouterr()
    assert "warning" in captured.err and "another base (dev)" in captured.err
    wide = {name: tensor.repeat(2, 2) for name, tensor in tensors.items()}
    save_tensors(other, wide, metadata)
    assert main(["inspect", str(other), "--model", "miniflux"]) == 0
    assert "does not fit this base model" in capsys.readouterr().err


class Interrupting(Bar):
    """Raises after the second iteration."""

    error: type[BaseException] = KeyboardInterrupt

    def __call__(self, progress: Progress) -> None:
        if progress.phase == "training" and progress.step == 2:
            raise self.error("no space left")


def test_ctrl_c_keeps_the_partial_lora_and_resume_goes_on(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "cat.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr("erase_core.cli.train.Bar", Interrupting)
        assert train(out, "--checkpoint-every", "1") == 130
    partial = tmp_path / "cat.partial-2.safetensors"
    assert str(partial) in capsys.readouterr().out
    assert not out.exists()
    assert read_tensors(partial)[1]["erase.stopped"] == "cancelled"

    checkpoints = tmp_path / "cat.checkpoints"
    assert main(["train", "--resume", str(checkpoints), "--out", str(out)]) == 0
    whole = tmp_path / "whole.safetensors"
    assert train(whole, "--checkpoint-every", "1") == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_failure_in_the_middle_keeps_the_work(
    small: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("erase_core.cli.train.Bar", Interrupting)
    monkeypatch.setattr(Interrupting, "error", OSError)
    assert train(tmp_path / "cat.safetensors") == 1
    assert "cat.partial-2.safetensors" in one_line(capsys)
    assert (tmp_path / "cat.partial-2.safetensors").exists()


def test_a_resumed_run_keeps_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "a", "--rank", "2", "--out", "a.safetensors"]) == 1
    assert "leave --rank out" in one_line(capsys)


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.b.safetensors"
    assert free_name(path) == path
    path.touch()
    (tmp_path / "a.b-2.safetensors").touch()
    assert free_name(path).name == "a.b-3.safetensors"


def test_seconds_as_a_clock_shows_them() -> None:
    assert (clock(59.6), clock(3725)) == ("1:00", "1:02:05")


def test_the_bar_writes_few_lines_into_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+") as log:
        bar = Bar(log)
        for step in range(1, 201):
            bar(Progress("training", step, 200, {"esd": 1.0}, 1.0))
        done = bar.phase("exam", 2)
        done(1)
        done(2)
        log.seek(0)
        lines = log.read().splitlines()
    assert len(lines) == 11 + 3
    assert lines[1].startswith("training") and "esd=1" in lines[1]
    assert "200/200" in lines[10] and "exam" in lines[-1]


def test_the_demo_leaves_all_that_it_tells_of(tmp_path: Path, small: None) -> None:
    """The README's first command, but for the iterations."""
    assert main(["demo", "--out", str(tmp_path), "--exam", "1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(demo.FILES)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["concept"] == "tiger" and "acc_e" in report


@pytest.mark.slow
def test_demo_meets_its_bars(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "erase_core", "demo", "--out", str(out), "--exam", "200"]
    subprocess.run(command, check=True, timeout=3600)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    untouched = report["untouched"]
    assert {path.name for path in out.iterdir()} == {
        "lora.safetensors",
        "before_after.png",
        "losses.png",
        "attention.png",
        "report.json",
    }
    assert report["acc_e"]["value"] <= 0.05
    assert report["acc_g"]["value"] <= 0.10
    assert report["acc_ir"]["value"] >= untouched["acc_ir"]["value"] - 0.03
    assert report["acc_companion"]["value"] >= untouched["acc_companion"]["value"] - 0.05
    recognised = report["recognised_when_erased"]["value"]
    assert recognised >= untouched["recognised_when_erased"]["value"] - 0.1
    assert report["seconds"]["to_lora"] <= 240


def keep_folder(folder: Path, captions: dict[str, str]) -> Path:
    """A folder with a picture for each name and the captions that there are."""
    folder.mkdir()
    for index, name in enumerate(("cars", "roses")):
        Image.new("RGB", (150, 200), (80 * index, 60, 90)).save(folder / f"{name}.png")
        if name in captions:
            (folder / f"{name}.txt").write_text(captions[name])
    return folder


@pytest.mark.usefixtures("small")
def test_own_pictures_say_what_must_stay(tmp_path: Path) -> None:
    folder = keep_folder(tmp_path / "keep", {"cars": "two cars", "roses": "a rose"})
    assert train(tmp_path / "with.safetensors", "--pictures", str(folder)) == 0
    assert train(tmp_path / "without.safetensors") == 0
    with_pictures, _ = read_tensors(tmp_path / "with.safetensors")
    without, _ = read_tensors(tmp_path / "without.safetensors")
    assert any(not torch.equal(with_pictures[name], without[name]) for name in without)


@pytest.mark.usefixtures("small")
def test_a_picture_without_caption_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = keep_folder(tmp_path / "keep", {"cars": "two cars"})
    assert train(tmp_path / "cat.safetensors", "--pictures", str(folder)) == 1
    assert "roses.txt" in one_line(capsys)
    assert not (tmp_path / "cat.safetensors").exists()
