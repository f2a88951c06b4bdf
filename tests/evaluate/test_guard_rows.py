"""Guards as rows of the benchmark: they sit the erasers' exams, and attacks go through them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.base import nothing
from erase_core.erasers.guards.base import Guard, find_guard, guards
from erase_core.errors import EraseError
from erase_core.evaluate.attacks.base import Target
from erase_core.evaluate.exam import Exam
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.suites.cell import Bench, Cell
from erase_core.methods.base import Task, find_method, methods
from erase_core.miniatures import miniflux
from erase_core.models.base import Model

MODEL, JUDGE = miniflux.load(torch.float32), RecogniserJudge()
TIGER = ConceptSet((JUDGE.concept("tiger"),))


def bench(folder: Path) -> Bench:
    return Bench(MODEL, JUDGE, folder, 2, lambda label, total: lambda done: None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Model, Tensor]]:
    """One step a picture; every model that drew an exam, and its pictures."""
    drawn: list[tuple[Model, Tensor]] = []

    def draw(exam: Exam[Any], model: Model, eraser: Any = None, **options: Any) -> Tensor:
        asked = exam.questions()
        pictures = model.generate(
            [q.prompt for q in asked], [q.seed for q in asked], eraser, steps=1, size=(64, 64)
        )
        pictures = pictures.repeat_interleave(2, 1).repeat_interleave(2, 2)
        drawn.append((model, pictures))
        return pictures

    monkeypatch.setattr(Exam, "draw", draw)
    return drawn


def test_every_guard_is_a_row() -> None:
    rows = {name for name, method in methods().items() if method.made == "guard"}
    assert rows == set(guards())
    told = find_method("dve anchor=lion strength=2").erase(Task(MODEL, TIGER))
    assert told.eraser is None and told.guard is not None
    assert (told.guard.settings.anchor, told.guard.settings.strength) == ("lion", 2)
    with pytest.raises(EraseError, match="Untouched makes no eraser"):
        find_method("word-gate over=untouched").erase(Task(MODEL, TIGER))


def test_a_guards_row_is_what_the_guarded_model_draws(
    tmp_path: Path, quick: list[tuple[Model, Tensor]]
) -> None:
    row = bench(tmp_path).run(Cell("dve", ("tiger",)))
    (model, before), (guarded, after) = quick
    assert model is MODEL and not torch.equal(before, after)
    made = Guard(find_guard("dve"), TIGER, find_guard("dve").settings())
    exam = JUDGE.exam(TIGER, 2, 0)
    assert torch.equal(exam.draw(made.wrap(MODEL)), after)
    assert row["acc_e"] == JUDGE.mark(exam, after).to_dict()["acc_e"] and row["distance"] > 0
    assert row["file_bytes"] == (tmp_path / "guards" / "dve" / "tiger 0.json").stat().st_size


def test_a_word_gates_row_leaves_other_prompts_alone(
    tmp_path: Path, quick: list[tuple[Model, Tensor]]
) -> None:
    cell, bench_ = Cell("word-gate", ("tiger",)), bench(tmp_path)
    row = bench_.run(cell)
    (_, before), (_, after) = quick
    roles = [role for role, asked in bench_.exam(cell).roles.items() for _ in asked]
    for role, one, other in zip(roles, before, after, strict=True):
        assert torch.equal(one, other) == (role in ("near", "other")), role
    assert row["settings"]["over"] == "uce" and bench_.guard(cell).exists()
    assert bench_.run(cell) == row and len(quick) == 2  # from its file
    for file in (tmp_path / "guards").rglob("*.*"):
        file.unlink()
    assert Bench(MODEL, JUDGE, tmp_path, 3, bench_.bar).run(cell)["pictures"] > row["pictures"]
    assert bench_.guard(cell).exists()  # made again


def test_a_guard_acts_over_an_erased_model_too(
    tmp_path: Path, quick: list[tuple[Model, Tensor]]
) -> None:
    cell, bench_ = Cell("dve over=uce", ("tiger",)), bench(tmp_path)
    row = bench_.run(cell)
    _, (_, after) = quick
    eraser = find_method("uce").erase(Task(MODEL, bench_.concepts(cell))).eraser
    assert eraser is not None
    guarded = Guard(find_guard("dve"), TIGER, find_guard("dve").settings()).wrap(MODEL)
    exam = bench_.exam(cell)
    assert torch.equal(exam.draw(guarded, eraser), after)
    assert not torch.equal(exam.draw(MODEL, eraser), after)
    assert row["settings"]["over"] == "uce" and row["file_bytes"] > 100_000
    more = Bench(MODEL, JUDGE, tmp_path, 3, bench_.bar)
    more.run(cell)  # both from their files
    assert torch.equal(more.exam(cell).draw(guarded, eraser), quick[-2][1])


def test_attacks_go_through_a_guard_and_learn_from_the_untouched_model() -> None:
    made = Guard(find_guard("dve"), TIGER, find_guard("dve").settings(strength=2.0))
    guarded = made.wrap(MODEL)
    target = Target(MODEL, JUDGE, nothing, "tiger", count=2, guarded=guarded)
    cond = MODEL.text.encode(["a tiger"])
    x, sigma = MODEL.noise([0], (64, 64)), torch.tensor(0.9)
    with torch.no_grad():
        plain, held = MODEL.velocity(x, sigma, cond, 3.5), guarded.velocity(x, sigma, cond, 3.5)
        assert not torch.equal(plain, held)
        assert torch.equal(target.velocity(x, sigma, cond, None), plain)
        assert torch.equal(target.velocity(x, sigma, cond, target.eraser), held)
    cond.context.requires_grad_()
    target.velocity(x, sigma, cond, target.eraser).square().mean().backward()
    assert cond.context.grad is not None and cond.context.grad.abs().max() > 0
