"""What counts as made before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, SETTINGS, make_model, make_trainer, run, same

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.metadata import Base, history_of
from erase_core.errors import EraseError
from erase_core.methods.again import day_made, is_part
from erase_core.methods.base import find_method
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.models.base import Model
from erase_core.tensors import read_metadata
from erase_core.training.save import file_metadata
from erase_core.training.states import KeepPictures

OURS = find_method("eraseanything")
IDLE = {"checkpoint_every": 2, "keep_checkpoints": 5, "activation_checkpointing": True}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished file of the tiny model."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    model, result = base(), run()
    path = tmp_path / "made.safetensors"
    result.eraser.save(path, file_metadata(result, CONCEPTS, Base.of(model)))
    return path


def base(**options: Any) -> Model:
    return make_model(**{"sha256": "ab" * 32} | options)


def day(
    file: Path,
    model: Model | None = None,
    settings: TrainSettings = SETTINGS,
    concepts: ConceptSet = CONCEPTS,
    seed: int = SETTINGS.seed,
    method: str = "eraseanything",
) -> str:
    return day_made(file, model or base(), find_method(method), concepts, settings, seed)


def test_the_same_order_is_known_again(made: Path) -> None:
    assert day(made) == "2023-11-14"
    assert day(made, settings=replace(SETTINGS, **IDLE)) == "2023-11-14"


def test_any_other_order_is_not(made: Path, tmp_path: Path) -> None:
    one = ConceptSet(CONCEPTS.concepts[:1])
    other = ConceptSet((replace(one.concepts[0], sentences=(f"a {one.concepts[0].name}",)),))
    assert one != other != CONCEPTS
    assert not day(made, concepts=other) and not day(made, seed=1)
    assert not day(made, settings=replace(SETTINGS, lr_low=0.5))
    assert not day(made, method="ours-plain")
    assert not day(made, base(sha256="cd" * 32)) and not day(made, base(sha256=""))
    assert not day(made, base(weights="float16")) and not day(tmp_path / "none.safetensors")


def test_what_no_file_tells_is_never_taken_for_the_same(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1)
    pictures = KeepPictures(torch.zeros(1, 16, 4, 6), ("a wall",))
    for name, model, options in (
        ("patched", base(weights="patched"), {}),
        ("pictures", base(), {"pictures": pictures}),
    ):
        result = make_trainer(settings, model=model, **options).run()
        path = tmp_path / f"{name}.safetensors"
        result.eraser.save(path, file_metadata(result, CONCEPTS, Base.of(model)))
        assert not day(path, model, settings)


def test_a_part_of_a_run_is_known(made: Path) -> None:
    whole = read_metadata(made)

    def partial(**settings: Any) -> dict[str, str]:
        told = json.loads(whole["erase.settings"]) | {"steps": 99} | settings
        return whole | {"erase.stopped": "cancelled", "erase.settings": json.dumps(told)}

    assert is_part(partial(), whole)
    assert not is_part(partial(lr_low=0.5), whole) and not is_part({}, whole)
    longer = {name: [*column, 0.1] for name, column in json.loads(whole["erase.history"]).items()}
    assert not is_part(partial() | {"erase.history": json.dumps(longer)}, whole)
    for name, value in (("concepts", "{}"), ("method", "uce"), ("base_sha256", "cd" * 32)):
        assert not is_part(partial() | {f"erase.{name}": value}, whole)
    for name, value in (("pictures", "1"), ("base_weights", "patched"), ("base_sha256", "")):
        both = {f"erase.{name}": value}
        assert not is_part(partial() | both, whole | both)


def test_settings_that_do_not_matter_change_no_byte(tmp_path: Path) -> None:
    """Held to what a run makes of them, one after the other."""
    idle = {name for name, about in TrainSettings.about().items() if not about.matters}
    assert idle == set(IDLE)
    plain = run().eraser.tensors()
    for name, value in IDLE.items():
        made = run(replace(SETTINGS, **{name: value}), checkpoint_dir=tmp_path / name)
        assert same(made.eraser.tensors(), plain), name


def test_a_resumed_run_with_pictures_still_counts_them(tmp_path: Path) -> None:
    settings = replace(SETTINGS, checkpoint_every=1)
    pictures = KeepPictures(torch.zeros(2, 16, 4, 6), ("a wall", "a wall"))
    trainer = make_trainer(settings, pictures=pictures, checkpoint_dir=tmp_path)
    trainer.run()
    resumed = type(trainer).resume(tmp_path, make_model(), steps=settings.steps + 1)
    assert resumed.run().pictures == 2


def test_the_losses_are_read_as_they_were() -> None:
    result = run()
    told = history_of(file_metadata(result, CONCEPTS, Base.of(base())))
    assert len(told) == len(result.history)
    for row, old in zip(told, result.history, strict=True):
        assert row == pytest.approx(old, rel=1e-3)
    assert history_of({}) == []
    for broken in ("[", json.dumps({"esd": [1], "attn": [1, 2]}), json.dumps({"esd": ["x"]})):
        with pytest.raises(EraseError, match="damaged"):
            history_of({"erase.history": broken})
