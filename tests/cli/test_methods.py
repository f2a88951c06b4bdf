"""Every method on the command line, and its file wherever a LoRA goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.short import SMALL
from tiny import CONCEPTS, make_model

import erase_core.miniatures.miniflux as miniflux
from erase_core.cli.main import main
from erase_core.cli.methods import SHOWN
from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.base import Both
from erase_core.erasers.combine import Part, combine
from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.load import load
from erase_core.erasers.lora import EraserLora
from erase_core.erasers.several import Several
from erase_core.errors import EraseError
from erase_core.methods import loop
from erase_core.methods.base import find_method, methods
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.miniatures.miniflux.concepts import concept
from erase_core.models.base import Model
from erase_core.tensors import read_tensors, save_tensors

PAPER = {"l_attn": 5.0, "l_lora": 0.1}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniFlux in float32 with all its presets, and other methods' rollouts, for a small run."""
    own, whole = miniflux.PRESETS["eraseanything"], miniflux.load
    brief = {name: preset | {"all": preset["all"] | SMALL} for name, preset in own.items()}
    monkeypatch.setattr(miniflux, "PRESETS", {"eraseanything": brief})
    monkeypatch.setattr(miniflux, "load", lambda *_: whole(torch.float32))
    monkeypatch.setattr(loop, "STEPS", 2)
    monkeypatch.setattr(loop, "PROMPTS", 4)


def train(out: Path, *more: str) -> int:
    return main(["train", "--concept", "cat", "--out", str(out), *more])


def settings(file: Path) -> dict[str, Any]:
    """What a file says that it was made with."""
    return json.loads(read_tensors(file)[1]["erase.settings"])


def refused(capsys: pytest.CaptureFixture[str], out: Path, *more: str) -> str:
    """The only line on standard error of a run that is refused and writes nothing."""
    assert train(out, *more) == 1
    assert not out.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "Unexpected" not in line
    return line


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- the list -------------------------------------------------------------------------------------


def test_every_method_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in told(capsys, "methods")["methods"]}
    assert list(rows) == list(methods())
    for name, method in methods().items():
        row = rows[name]
        assert (row["made"], row["product"]) == (method.made, method.product)
        assert row["families"] == (list(method.families) or ["all"])
        assert (row["label"], row["paper"]) == (method.label, method.paper)
        assert row["seconds"] == (method.cost.seconds if method.cost else None)
    assert {name for name, row in rows.items() if row["product"]} >= {"eraseanything", "uce"}
    assert rows["uce"]["made"] == "closed form" and rows["uce"]["seconds"] < 10
    assert main(["methods"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [*SHOWN] and len(lines) == len(rows)
    (line,) = [line for line in lines if line.startswith("uce ")]
    assert line.split()[1:6] == ["closed", "form", "yes", "all", str(rows["uce"]["seconds"])]


def test_the_settings_of_a_method_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = told(capsys, "methods", "--settings", "esd-x")["settings"]
    about = find_method("esd-x").settings.about()
    assert {row["name"]: row["help"] for row in rows} == {n: a.help for n, a in about.items()}
    assert main(["methods", "--settings", "unheard"]) == 1
    assert "There is no method unheard" in capsys.readouterr().err


# --- an edit of weights goes wherever a LoRA goes -------------------------------------------------


@pytest.fixture
def uce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "uce.safetensors"
    said = told(capsys, "train", "--concept", "cat", "--method", "uce", "--out", out)
    assert (said["lora"], said["stopped"]) == (str(out), "done")
    return out


@pytest.mark.parametrize("kind", ["bf16", "fp8", "scaled fp8"])
def test_a_closed_form_reads_the_base_files_that_people_have(
    kind: str, uce: Path, tmp_path: Path
) -> None:
    """The edit is that of the base as it is, as far as the file's precision goes."""
    base, out = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    save_tensors(base, narrowed(read_tensors(miniflux.FOLDER / "transformer.safetensors")[0], kind))
    files = [str(miniflux.FOLDER / f"{name}.safetensors") for name in ("clip_l", "t5xxl")]
    argv = ["--model", str(base), "--clip-l", files[0], "--t5", files[1], "--t5-length", "64"]
    argv += ["--tokenizers", str(miniflux.FOLDER), "--method", "uce"]
    ConceptSet((concept("cat"),)).save(tmp_path / "cat.json")
    argv += ["--concepts", str(tmp_path / "cat.json"), "--out", str(out)]
    assert main(["train", *argv]) == 0
    wanted, found = WeightEdit.load(uce).changes, WeightEdit.load(out).changes
    for name, change in wanted.items():
        error = float(((found[name] - change).norm() / change.norm()).detach())
        if kind == "bf16":  # as MiniFlux's own file is
            assert error < 1e-6, (name, error)
        else:
            assert 1e-4 < error < 0.06, (name, error)


def narrowed(state: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """A transformer as its file holds it: matrices in 8 bits, with a scale each or without."""
    if kind == "bf16":
        return {key: tensor.bfloat16() for key, tensor in state.items()}
    found: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        scale = tensor.float().abs().max() / 448 if kind == "scaled fp8" else torch.tensor(1.0)
        narrow = tensor.ndim == 2
        found[key] = (tensor.float() / scale).to(torch.float8_e4m3fn) if narrow else tensor
        if narrow and kind == "scaled fp8":
            found[key.replace(".weight", ".scale_weight")] = scale
    return found


def draws(eraser: Any, model: Model) -> torch.Tensor:
    return model.draw(["a cat"], [0], eraser, steps=1, size=(64, 64))


def test_a_closed_form_is_drawn_with(uce: Path, tmp_path: Path) -> None:
    pictures = []
    for strength in ("", "0", "1"):
        picture = tmp_path / f"at{strength}.png"
        argv = ["generate", "--prompt", "a cat", "--steps", "2", "--out", str(picture)]
        argv += ["--lora", str(uce), "--strength", strength] if strength else []
        assert main(argv) == 0
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_closed_form_has_maps_of_attention(
    uce: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--prompt", "a cat and a car", "--words", "cat", "car", "--steps", 2]
    argv += ["--lora", uce, "--out", tmp_path / "words.png"]
    highest = told(capsys, "attention", *argv)["highest"]
    assert highest["without"] != highest["with eraser"]


def test_a_closed_form_is_inspected(uce: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = told(capsys, "inspect", uce, "--model", "miniflux")
    assert about["warning"] is None
    assert set(about["change"]) == {"txt_in", "vector_in.in_layer"}
    changes = WeightEdit.load(uce).changes
    assert about["change"]["txt_in"] == pytest.approx(changes["txt_in"].norm().item(), rel=1e-4)
    assert about["metadata"]["erase.settings"]["ridge"] == find_method("uce").settings().ridge
    assert about["metadata"]["erase.concepts"]["concepts"][0]["name"] == "cat"


def test_a_lora_and_an_edit_are_one_file(uce: Path, tmp_path: Path) -> None:
    lora, both = tmp_path / "lora.safetensors", tmp_path / "both.safetensors"
    assert train(lora) == 0
    parts = [Part(*_weighted(path, weight)) for path, weight in ((lora, 1.0), (uce, 0.5))]
    save_tensors(both, combine(parts))
    model = miniflux.load()
    loaded, first, second = (load(path, model) for path in (both, lora, uce))
    assert isinstance(loaded, Several)
    assert isinstance(first, EraserLora) and isinstance(second, WeightEdit)
    wanted = draws(Both(first, second.scaled(0.5)), model)
    assert torch.allclose(draws(loaded, model), wanted, atol=1e-5)
    assert not torch.allclose(draws(first, model), wanted, atol=1e-3)
    assert main(["inspect", str(both), "--model", "miniflux"]) == 0
    with pytest.raises(EraseError, match="choose cat, which can"):
        combine(parts, "ties")
    argv = ["--prompt", "a cat", "--steps", "1", "--out", str(tmp_path / "both.png")]
    assert main(["generate", "--lora", str(both), *argv]) == 0


def _weighted(path: Path, weight: float) -> tuple[dict[str, torch.Tensor], float, dict[str, str]]:
    tensors, metadata = read_tensors(path)
    return tensors, weight, metadata


def test_an_edit_of_another_base_is_refused(uce: Path, tmp_path: Path) -> None:
    wide = {name: tensor.repeat(2, 2) for name, tensor in read_tensors(uce)[0].items()}
    save_tensors(tmp_path / "wide.safetensors", wide)
    with pytest.raises(EraseError, match="does not fit this base model"):
        load(tmp_path / "wide.safetensors", miniflux.load())


# --- presets and settings -------------------------------------------------------------------------


def test_a_run_starts_from_a_preset(tmp_path: Path) -> None:
    out = tmp_path / "cat.safetensors"
    assert train(out, "--preset", "paper", "--steps", "2") == 0
    made = settings(out)
    assert {name: made[name] for name in PAPER} == PAPER
    assert (made["steps"], made["lr_low"]) == (2, TrainSettings().lr_low)


def test_without_a_preset_the_model_says_which(tmp_path: Path) -> None:
    out = tmp_path / "cat.safetensors"
    assert train(out, "--steps", "2") == 0
    assert settings(out)["l_adv"] > 0  # the robust one


def test_an_unknown_preset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        train(tmp_path / "cat.safetensors", "--preset", "medium")
    assert left.value.code == 2
    assert "balanced" in capsys.readouterr().err
    with pytest.raises(EraseError, match="no preset robust .* choose from fast, balanced, paper"):
        find_method("eraseanything").suited(make_model(), CONCEPTS, "robust")


def test_another_methods_settings_are_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cat.safetensors"
    argv = ["--method", "esd-x", "--set", "lr=1e-3", "--set", "steps=2", "--seed", "3"]
    assert train(out, *argv) == 0
    assert f"{out}: made in 0:" in capsys.readouterr().out
    made = settings(out)
    assert (made["lr"], made["steps"], made["seed"]) == (1e-3, 2, 3)


def test_our_settings_are_set_either_way(tmp_path: Path) -> None:
    for name, more in {
        "a": ["--rank", "3", "--targets", "add_q_proj", "--seed", "5"],
        "b": ["--set", "rank=3", "targets=add_q_proj", "seed=5"],
    }.items():
        assert train(tmp_path / f"{name}.safetensors", "--preset", "fast", *more) == 0
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--method", "esd-x", "--set", "lrr=1"], "There is no setting 'lrr'; did you mean lr?"),
        (["--method", "esd-x", "--set", "lr=fast"], "The setting lr must be a number from"),
        (["--method", "esd-x", "--set", "steps"], "The setting steps must be a whole number"),
        (["--set", "null=never"], "The setting null must be one of"),
        (["--method", "esd-x", "--rank", "3"], "has settings of its own; tell them with --set"),
        (["--method", "unheard"], "There is no method unheard"),
        (["--method", "untouched"], "untouched changes nothing, so there is no file"),
        (["--method", "dve"], "dve is a guard and trains nothing; make one with the command guard"),
        (["--method", "uce", "--seed", "-1"], "The setting seed must be a whole number from"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(
    more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, tmp_path / "cat.safetensors", *more)


def test_single_erasers_are_added(tmp_path: Path) -> None:
    """Text encoders outlive the first run, and its checkpoints are none of the second's."""
    out = tmp_path / "both.safetensors"
    argv = ["train", "--concept", "cat", "car", "--method", "ours-combined", "--out", str(out)]
    assert main([*argv, "--checkpoint-every", "2"]) == 0
    assert {min(tensor.shape) for tensor in read_tensors(out)[0].values()} == {16}


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [["--method", "uce"], ["--preset", "fast"], ["--set", "rank=2"]], ids=lambda m: m[0]
)
def test_a_resumed_run_is_told_nothing_else(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", "a", *more, "--out", "a.safetensors"]) == 1
    assert f"leave {more[0]} out" in capsys.readouterr().err


def test_a_resumed_run_ends_where_it_was_to_end(tmp_path: Path) -> None:
    """Not after the steps of a preset that it was not begun with."""
    out, kept = tmp_path / "cat.safetensors", tmp_path / "kept"
    fast = ["--preset", "fast", "--checkpoint-every", "2", "--checkpoints", str(kept)]
    assert train(out, *fast, "--steps", "4") == 0
    for more, steps in (([], 4), (["--steps", "5"], 5)):
        argv = ["train", "--resume", str(kept), "--overwrite", "--out", str(out), *more]
        assert main(argv) == 0
        assert read_tensors(out)[1]["erase.steps"] == str(steps)
