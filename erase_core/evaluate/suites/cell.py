"""One cell of the tables: a method erases a concept, and the result is examined."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...concepts.sets import ConceptSet
from ...erasers.base import nothing
from ...erasers.guards.base import Guard
from ...erasers.load import load
from ...files import read_json, write_json
from ...methods.base import Task, find_method
from ...models.base import Adapter, Model
from ...tensors import read_tensors, save_tensors
from ...training.progress import NewBar, Progress
from ...writing import atomic
from ..attacks.base import Attack, Target
from ..exam import Exam
from ..judges.recogniser import Case, RecogniserJudge
from ..marks import Role
from ..report.sheets import strip
from ..scores import Rate
from .cost import Peak
from .harm import feature_distance, features, frechet

STAYS: tuple[Role, ...] = ("near", "other", "companion")  # roles whose pictures ought not to change
FRECHET = 500  # prompts
MADE = ("settings", "seconds", "threads", "peak_bytes", "file_bytes")  # what no new exam changes


@dataclass(frozen=True)
class Cell:
    """``method`` erases ``concepts`` with ``seed``; ``title`` names the concepts in files."""

    method: str
    concepts: tuple[str, ...]
    seed: int = 0

    @property
    def title(self) -> str:
        """The concept, or the first and how many more."""
        first, *others = self.concepts
        return f"{first} and {len(others)} more" if others else first


class Subject(NamedTuple):
    """What is examined: an eraser, or guards on a model."""

    eraser: Adapter | None
    guarded: Model | None = None


UNTOUCHED = Subject(None)


@dataclass(frozen=True)
class Bench:
    """A model, its judge, the folder of the results, the number of pictures a question, and what
    starts a progress bar."""

    model: Model
    judge: RecogniserJudge
    folder: Path
    count: int
    bar: NewBar

    def result(self, cell: Cell) -> Path:
        """The JSON file of a cell; its eraser and a strip of its pictures are beside it."""
        return self.folder / "cells" / cell.method / f"{cell.title} {cell.seed}.json"

    def guard(self, cell: Cell) -> Path:
        """The JSON file of a cell's guard, where it is one."""
        return self.folder / "guards" / cell.method / f"{cell.title} {cell.seed}.json"

    def run(self, cell: Cell) -> dict[str, Any]:
        """The row of a cell, from its file where there is one. Its eraser sits a new exam when
        another number of pictures is asked for, and is made again if it is gone."""
        path, exam = self.result(cell), self.exam(cell)
        row: dict[str, Any] = read_json(path) if path.exists() else {}
        if row.get("pictures") != len(exam.questions()):
            made = {name: row[name] for name in MADE if name in row} or self._erase(cell)
            row = made | self._examine(cell, exam, self._subject(cell, made))
            write_json(path, row)
        return row

    def attack(self, cell: Cell, attack: Attack) -> dict[str, Any]:
        """How often an attack brings the concept of a cell back, from its file where there is one.

        The cell itself is run first, unless it is done.
        """
        path = (
            self.folder / "attacks" / cell.method / f"{cell.title} {cell.seed} {attack.name}.json"
        )
        if not path.exists():
            subject = self._subject(cell, self.run(cell))
            began = time.perf_counter()
            on_step = self._on_step(f"{cell.method}: {attack.name}")
            target = Target(
                self.model,
                self.judge,
                subject.eraser,
                cell.concepts[0],
                seed=cell.seed,
                on_step=on_step,
                guarded=subject.guarded,
            )
            rate = attack.run(target)
            row = {
                "method": cell.method,
                "concept": cell.title,
                "kind": self.kind(cell),
                "seed": cell.seed,
                "attack": attack.name,
                "rate": rate.to_dict(),
                "seconds": round(time.perf_counter() - began, 1),
            }
            write_json(path, row)
        return read_json(path)

    def _subject(self, cell: Cell, made: dict[str, Any]) -> Subject:
        """The eraser, guard or both of a cell from their files; else UNTOUCHED."""
        file, guard = self.result(cell).with_suffix(".safetensors"), self.guard(cell)
        if made["file_bytes"] and not file.exists() and not guard.exists():
            self._erase(cell)
        eraser = load(file, self.model) if file.exists() else None
        if guard.exists():
            return Subject(eraser or nothing, Guard.load(guard).wrap(self.model))
        return Subject(eraser) if eraser else UNTOUCHED

    def _examine(self, cell: Cell, exam: Exam[Case], subject: Subject) -> dict[str, Any]:
        """What an eraser or guard does; a strip of its pictures is kept."""
        before = self._untouched(cell, exam)
        after = before if subject == UNTOUCHED else self._draw(exam, subject, cell.method)
        with atomic(self.result(cell).with_suffix(".png")) as temporary:
            strip(exam, after).save(temporary, "PNG")
        return {
            "method": cell.method,
            "concepts": list(cell.concepts),
            "kind": self.kind(cell),
            "thing": self.judge.kind(cell.concepts[0]),
            "seed": cell.seed,
            "pictures": len(exam.questions()),
            **self.judge.mark(exam, after).to_dict(),
            "untouched": self.judge.mark(exam, before).to_dict(),
            **self._harm(exam, before, after),
        }

    def frechet(self, cell: Cell) -> dict[str, Any]:
        """FID of FRECHET pictures that ought to stay, from its file where there is one.

        Against as many pictures of the untouched model for the same prompts from other noise, so
        that the untouched model has a distance, too: the floor.
        """
        path = self.folder / "frechet" / cell.method / f"{cell.title} {cell.seed}.json"
        if not path.exists():
            subject = self._subject(cell, self.run(cell))
            asked = self.judge.cases(self.judge.others(cell.concepts[0]), FRECHET, cell.seed + 6)
            elsewhere = [replace(case, seed=case.seed + 1) for case in asked]
            reference = self._reference(cell, elsewhere)
            own = self._features(cell, cell.method, asked, subject)
            names = {"method": cell.method, "concept": cell.title, "seed": cell.seed}
            row = names | {"fid": frechet(own, reference)}
            write_json(path, row)
        return read_json(path)

    def _reference(self, cell: Cell, asked: list[Case]) -> Tensor:
        """The features of the untouched model's pictures, drawn once for all methods."""
        path = self.folder / "features" / f"{cell.title} {cell.seed}.safetensors"
        if not path.exists():
            found = self._features(cell, "reference", asked, UNTOUCHED)
            save_tensors(path, {"features": found})
        return read_tensors(path)[0]["features"]

    def _features(self, cell: Cell, label: str, asked: list[Case], subject: Subject) -> Tensor:
        """The recogniser's features of the cases' pictures."""
        pictures = self._draw(Exam(cell.title, {"other": asked}), subject, label)
        return features(self.judge, pictures)

    def concepts(self, cell: Cell) -> ConceptSet:
        """The concepts of a cell with their words; none keeps what another erases."""
        return ConceptSet.together(map(self.judge.concept, cell.concepts))

    def kind(self, cell: Cell) -> str:
        """The paper's kind: entity, abstraction or relationship; "several" for more than one."""
        first, *others = cell.concepts
        return "several" if others else self.judge.concept(first).kind

    def exam(self, cell: Cell) -> Exam[Case]:
        """The questions of a cell, the same for every method."""
        return self.judge.exam(self.concepts(cell), self.count, cell.seed)

    def _erase(self, cell: Cell) -> dict[str, Any]:
        """Make and save the eraser or guard; with which settings, and what it cost: seconds, bytes
        in memory and on disk."""
        method, tell = find_method(cell.method), self._on_step(f"{cell.method}: {cell.title}")

        def on_step(progress: Progress) -> None:
            if progress.phase == "training":
                tell(progress.step, progress.steps)

        task = Task(self.model, self.concepts(cell), cell.seed, on_step)
        began = time.perf_counter()
        with Peak(self.model.tree) as peak:
            result = method.erase(task)
        eraser, guard = result.eraser, result.guard
        if eraser is not None:
            eraser.save(self.result(cell).with_suffix(".safetensors"), {"format": "pt"})
        tensors: Mapping[str, Tensor] = eraser.tensors() if eraser else {}
        if guard is not None:
            guard.save(self.guard(cell))
            tensors = {**tensors, **guard.tensors}
        told = 0 if guard is None else self.guard(cell).stat().st_size
        return {
            "settings": dict(result.settings),
            "seconds": round(time.perf_counter() - began, 1),
            "threads": torch.get_num_threads(),
            "peak_bytes": peak.bytes,
            "file_bytes": told + sum(t.nbytes for t in tensors.values()),
        }

    def _on_step(self, label: str) -> Callable[[int, int], None]:
        """A progress line that starts once the total is known."""
        lines: dict[int, Callable[[int], None]] = {}

        def on_step(done: int, total: int) -> None:
            if total not in lines:
                lines[total] = self.bar(label, total)
            lines[total](done)

        return on_step

    def _draw(self, exam: Exam[Case], subject: Subject, label: str) -> Tensor:
        on_batch = self.bar(f"{label}: exam", len(exam.questions()))
        return exam.draw(subject.guarded or self.model, subject.eraser, on_batch=on_batch)

    def _untouched(self, cell: Cell, exam: Exam) -> Tensor:
        """The untouched model's pictures, drawn once for all methods."""
        name = f"{cell.title} {cell.seed} {len(exam.questions())}.safetensors"
        path = self.folder / "untouched" / name
        if not path.exists():
            save_tensors(path, {"pictures": self._draw(exam, UNTOUCHED, "untouched")})
        return read_tensors(path)[0]["pictures"]

    def _harm(self, exam: Exam[Case], before: Tensor, after: Tensor) -> dict[str, Any]:
        """How far the pictures that ought to stay have moved, and whether they still agree with
        their prompts."""
        roles = [role for role, asked in exam.roles.items() for _ in asked]
        rows = [row for row, role in enumerate(roles) if role in STAYS]
        asked = [exam.questions()[row] for row in rows]
        moved = feature_distance(self.judge, before[rows], after[rows])
        agreed = Rate.of(self.judge.agrees(after[rows], asked))
        return {"distance": round(float(moved.mean()), 5), "agreement": agreed.to_dict()}
