"""An eraser that grows: it starts as the old one, and learns the new beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, SETTINGS, TIGER, make_model, make_trainer, run, same, stop_at
from torch import Tensor

from erase_core.concepts.sets import Concept, ConceptSet
from erase_core.erasers.earlier import Earlier
from erase_core.erasers.metadata import Base
from erase_core.errors import EraseError
from erase_core.methods.again import day_made, is_part
from erase_core.methods.base import find_method
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Model
from erase_core.tensors import read_metadata, read_tensors
from erase_core.training.save import file_metadata

METHOD = "eraseanything"
FOX = Concept("fox", irrelevant=replace(TIGER.irrelevant, near=("lion", "tiger")))
NEW = ConceptSet((FOX,))
LARGER = replace(SETTINGS, rank=3)


def base(**options: Any) -> Model:
    return make_model(**{"sha256": "ab" * 32} | options)


def save(path: Path, settings: TrainSettings = SETTINGS, **options: Any) -> Path:
    """A finished file of the tiny model."""
    made = run(settings, model=base(), **options)
    concepts = options.get("concepts", CONCEPTS)
    made.eraser.save(path, file_metadata(made, concepts, Base.of(base())))
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("old") / "old.safetensors")


def read(path: Path, model: Model | None = None, method: str = METHOD) -> Earlier:
    return Earlier.read(*read_tensors(path), path.name, model or base(), method)


def growing(old: Path, settings: TrainSettings = LARGER, **options: Any) -> Trainer:
    earlier = read(old)
    told = {"concepts": earlier.growing_by(NEW), "earlier": earlier, "model": base()}
    return make_trainer(settings, **told | options)


def merged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The changes of a LoRA file, by plain multiplication."""
    names = [name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name]
    return {n: tensors[f"{n}.lora_B.weight"] @ tensors[f"{n}.lora_A.weight"] for n in names}


@pytest.mark.parametrize("change", [{}, {"rank": 2}, {"alpha": 6.0}])
def test_it_starts_as_the_old_one(old: Path, change: dict[str, Any]) -> None:
    tensors = growing(old, replace(LARGER, **change)).lora.tensors()
    before = merged(read_tensors(old)[0])
    assert any(product.abs().max() > 0 for product in before.values())
    for name, product in merged(tensors).items():
        torch.testing.assert_close(product, before[name], rtol=1e-5, atol=1e-9)
    fresh = make_trainer(replace(LARGER, **change), model=base()).lora.tensors()
    for name in before if not change else ():  # the further directions are those of any new LoRA
        key = f"{name}.lora_A.weight"
        assert torch.equal(tensors[key][2:], fresh[key][2:])


def test_all_concepts_are_looked_at_the_new_one_half_of_the_time(old: Path) -> None:
    trainer = growing(old)
    assert [c.name for c in trainer.concepts.concepts] == ["tiger", "fox"]
    assert "tiger" not in trainer.concepts.concepts[1].irrelevant_words()
    drawn = [trainer._concept() for _ in range(400)]
    assert 150 < sum(drawn) < 250
    trainer.concepts = ConceptSet((*trainer.concepts.concepts, Concept("piano"), Concept("bus")))
    trainer.known = 3
    drawn = [trainer._concept() for _ in range(400)]
    assert 150 < drawn.count(3) < 250 and {*drawn} == {0, 1, 2, 3}


def test_its_settings_are_those_of_all_but_for_the_iterations() -> None:
    plain = TrainSettings()
    grown = plain.for_growing(5, 1)
    assert grown == replace(plain.for_concepts(6), steps=plain.for_concepts(2).steps)


def test_a_stopped_run_goes_on_to_the_same_file(old: Path, tmp_path: Path) -> None:
    whole = growing(old).run()
    cut = growing(old, checkpoint_dir=tmp_path, on_step=stop_at(4, KeyboardInterrupt)).run()
    assert cut.stopped == "cancelled" and not same(cut.eraser.tensors(), whole.eraser.tensors())
    resumed = Trainer.resume(tmp_path, base()).run()
    assert same(resumed.eraser.tensors(), whole.eraser.tensors())
    assert resumed.extends == whole.extends == read(old).sha256
    started = merged(read_tensors(old)[0])
    assert any((new - started[n]).norm() > 0 for n, new in merged(whole.eraser.tensors()).items())


def test_its_file_names_all_and_what_it_extends(old: Path, tmp_path: Path) -> None:
    earlier = read(old)
    concepts = earlier.growing_by(NEW)
    path = save(tmp_path / "new.safetensors", LARGER, concepts=concepts, earlier=earlier)
    told = read_metadata(path)
    assert "erases tiger, fox" in told["ss_training_comment"]
    assert told["erase.extends"] == earlier.sha256
    assert "erase.extends" not in read_metadata(old)
    method = find_method(METHOD)
    made = path, base(), method, concepts, LARGER, 0
    assert day_made(*made, earlier) and not day_made(*made)
    other = save(tmp_path / "other.safetensors", replace(SETTINGS, lr_low=2e-3))
    assert not day_made(*made, read(other))
    assert is_part(told, told) and not is_part(told, told | {"erase.extends": "0"})
    again = read(path).growing_by(ConceptSet((Concept("piano"),)))
    assert [concept.name for concept in again.concepts] == ["tiger", "fox", "piano"]


def test_another_day_makes_no_other_eraser(old: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(old)
    later = Earlier.read(tensors, metadata | {"erase.date": "2030-01-01"}, "x", base(), METHOD)
    assert later.sha256 == read(old).sha256


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"erase.method": "uce"}, "was made by uce; eraseanything extends only"),
        ({"erase.method": ""}, "does not say how it was made"),
        ({"erase.stopped": "cancelled"}, "unfinished"),
        ({"erase.base_sha256": "cd" * 32}, "made for another base"),
        ({"erase.concepts": "{"}, "damaged"),
        ({"erase.settings": "[]"}, "damaged"),
    ],
)
def test_what_is_no_start_is_refused(old: Path, told: dict[str, str], why: str) -> None:
    tensors, metadata = read_tensors(old)
    with pytest.raises(EraseError, match=why):
        Earlier.read(tensors, metadata | told, "old.safetensors", base(), METHOD)


@pytest.mark.parametrize("name", ["tiger", "Tigers", "big cat"])
def test_what_it_erases_already_is_refused(old: Path, name: str) -> None:
    with pytest.raises(EraseError, match="already; name only what is new"):
        read(old).growing_by(ConceptSet((Concept(name),)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rank": 1}, r"old.safetensors \(add_q_proj add_k_proj\) has rank 2; set rank to 2"),
        ({"targets": ("add_q_proj",)}, "changes other layers"),
    ],
)
def test_settings_that_do_not_fit_it_are_refused(
    old: Path, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(EraseError, match=why):
        growing(old, replace(LARGER, **change))


@pytest.mark.parametrize("method", ["uce", "esd-x", "ours-combined"])
def test_other_methods_extend_nothing(old: Path, method: str) -> None:
    with pytest.raises(EraseError, match="extends no eraser"):
        find_method(method).suited(base(), CONCEPTS, earlier=read(old))
