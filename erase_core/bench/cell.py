"""One cell of the tables: a method erases a concept, and the result is examined."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle import Bundle
from ..concepts.sets import ConceptSet
from ..edit import SUFFIX, WeightEdit
from ..files import read_json, read_tensors, save_tensors, write_json
from ..flux.forward import tree_device
from ..lora import EraserLora
from ..metrics.recogniser import Recogniser
from ..metrics.scores import Rate
from ..miniflux.concepts import concept
from ..miniflux.exam import Exam
from ..miniflux.judge import Case, agreement, cases, kind_of, others, recognise
from ..writing import atomic
from .attack import Attack, Target
from .cost import Peak
from .harm import feature_distance, features, frechet
from .method import Eraser, Task, find_method
from .sheets import strip

STAYS = ("near", "other", "companion")  # roles whose pictures ought not to change
FRECHET = 500  # prompts
MADE = ("settings", "seconds", "threads", "peak_bytes", "file_bytes")  # what no new exam changes
Phase = Callable[[str, int], Callable[[int], None]]  # starts a line of a progress bar


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

    @property
    def concept_set(self) -> ConceptSet:
        """The concepts with their words; none keeps what another erases."""
        return ConceptSet.together(map(concept, self.concepts))

    @property
    def kind(self) -> str:
        """The paper's kind: entity, abstraction or relationship; "several" for more than one."""
        return concept(self.concepts[0]).kind if len(self.concepts) == 1 else "several"


@dataclass(frozen=True)
class Bench:
    """A model, its judge, the folder of the results and the number of pictures a question."""

    bundle: Bundle
    judge: Recogniser
    folder: Path
    count: int
    phase: Phase

    def result(self, cell: Cell) -> Path:
        """The JSON file of a cell; its eraser and a strip of its pictures are beside it."""
        return self.folder / "cells" / cell.method / f"{cell.title} {cell.seed}.json"

    def run(self, cell: Cell) -> dict[str, Any]:
        """The row of a cell, from its file where there is one; its eraser sits a new exam when
        another number of pictures is asked for, and is made again if it is gone."""
        path, exam = self.result(cell), self.exam(cell)
        row: dict[str, Any] = read_json(path) if path.exists() else {}
        if row.get("pictures") != len(exam.cases()):
            made = {name: row[name] for name in MADE if name in row} or self._erase(cell)
            row = made | self._examine(cell, exam, self._eraser(cell, made))
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
            eraser = self._eraser(cell, self.run(cell))
            began = time.perf_counter()
            on_step = self._on_step(f"{cell.method}: {attack.name}")
            target = Target(
                self.bundle,
                self.judge,
                eraser,
                cell.concepts[0],
                seed=cell.seed,
                on_step=on_step,
            )
            rate = attack.run(target)
            row = {
                "method": cell.method,
                "concept": cell.title,
                "kind": cell.kind,
                "seed": cell.seed,
                "attack": attack.name,
                "rate": rate.to_dict(),
                "seconds": round(time.perf_counter() - began, 1),
            }
            write_json(path, row)
        return read_json(path)

    def _eraser(self, cell: Cell, made: dict[str, Any]) -> Eraser | None:
        """The eraser of a cell from its file; None for one that changes nothing."""
        path = self.result(cell).with_suffix(".safetensors")
        if made["file_bytes"] and not path.exists():
            self._erase(cell)
        return load_eraser(path, self.bundle) if path.exists() else None

    def _examine(self, cell: Cell, exam: Exam, eraser: Eraser | None) -> dict[str, Any]:
        """What an eraser does; a strip of its pictures is kept."""
        before = self._untouched(cell, exam)
        after = before if eraser is None else self._draw(exam, eraser, cell.method)
        with atomic(self.result(cell).with_suffix(".png")) as temporary:
            strip(exam, after).save(temporary, "PNG")
        return {
            "method": cell.method,
            "concepts": list(cell.concepts),
            "kind": cell.kind,
            "thing": kind_of(cell.concepts[0]),
            "seed": cell.seed,
            "pictures": len(exam.cases()),
            **exam.mark(after, self.judge).to_dict(),
            "untouched": exam.mark(before, self.judge).to_dict(),
            **self._harm(exam, before, after),
        }

    def frechet(self, cell: Cell) -> dict[str, Any]:
        """FID of FRECHET pictures that ought to stay, from its file where there is one.

        Against as many pictures of the untouched model for the same prompts from other noise, so
        that the untouched model has a distance, too: the floor.
        """
        path = self.folder / "frechet" / cell.method / f"{cell.title} {cell.seed}.json"
        if not path.exists():
            eraser = self._eraser(cell, self.run(cell))
            asked = cases(others(cell.concepts[0]), FRECHET, cell.seed + 6)
            elsewhere = [replace(case, seed=case.seed + 1) for case in asked]
            reference = self._reference(cell, elsewhere)
            own = self._features(cell, cell.method, asked, eraser)
            names = {"method": cell.method, "concept": cell.title, "seed": cell.seed}
            row = names | {"fid": frechet(own, reference)}
            write_json(path, row)
        return read_json(path)

    def _reference(self, cell: Cell, asked: list[Case]) -> Tensor:
        """The features of the untouched model's pictures, drawn once for all methods."""
        path = self.folder / "features" / f"{cell.title} {cell.seed}.safetensors"
        if not path.exists():
            found = self._features(cell, "reference", asked, None)
            save_tensors(path, {"features": found})
        return read_tensors(path)[0]["features"]

    def _features(self, cell: Cell, label: str, asked: list[Case], eraser: Eraser | None) -> Tensor:
        """The recogniser's features of the cases' pictures."""
        pictures = self._draw(Exam(cell.title, {"other": asked}), eraser, label)
        return features(self.judge, pictures)

    def exam(self, cell: Cell) -> Exam:
        """The questions of a cell, the same for every method."""
        if len(cell.concepts) == 1:
            return Exam.of(cell.concepts[0], self.count, cell.seed)
        return Exam.together(cell.concepts, self.count, cell.seed)

    def _erase(self, cell: Cell) -> dict[str, Any]:
        """Make and save the eraser; with which settings, and what it cost: seconds, bytes in memory
        and on disk."""
        method, on_step = find_method(cell.method), self._on_step(f"{cell.method}: {cell.title}")
        task = Task(self.bundle, cell.concept_set, cell.seed, on_step)
        settings = method.suited(task.concept)
        began = time.perf_counter()
        with Peak(self.bundle.tree) as peak:
            eraser = method.erase(task)
        if eraser is not None:
            eraser.save(self.result(cell).with_suffix(".safetensors"), {"format": "pt"})
        return {
            "settings": {n: v for n, v in settings.items() if v not in (None, ())},
            "seconds": round(time.perf_counter() - began, 1),
            "threads": torch.get_num_threads(),
            "peak_bytes": peak.bytes,
            "file_bytes": sum(t.nbytes for t in eraser.tensors().values()) if eraser else 0,
        }

    def _on_step(self, label: str) -> Callable[[int, int], None]:
        """A progress line that starts once the total is known."""
        lines: dict[int, Callable[[int], None]] = {}

        def on_step(done: int, total: int) -> None:
            if total not in lines:
                lines[total] = self.phase(label, total)
            lines[total](done)

        return on_step

    def _draw(self, exam: Exam, eraser: Eraser | None, label: str) -> Tensor:
        on_batch = self.phase(f"{label}: exam", len(exam.cases()))
        return exam.draw(self.bundle, eraser, on_batch=on_batch)

    def _untouched(self, cell: Cell, exam: Exam) -> Tensor:
        """The untouched model's pictures, drawn once for all methods."""
        name = f"{cell.title} {cell.seed} {len(exam.cases())}.safetensors"
        path = self.folder / "untouched" / name
        if not path.exists():
            save_tensors(path, {"pictures": self._draw(exam, None, "untouched")})
        return read_tensors(path)[0]["pictures"]

    def _harm(self, exam: Exam, before: Tensor, after: Tensor) -> dict[str, Any]:
        """How far the pictures that ought to stay have moved, and whether they still agree with
        their prompts."""
        roles = [role for role, asked in exam.roles.items() for _ in asked]
        rows = [row for row, role in enumerate(roles) if role in STAYS]
        asked = [exam.cases()[row] for row in rows]
        moved = feature_distance(self.judge, before[rows], after[rows])
        agreed = Rate.of(agreement(recognise(self.judge, after[rows]), asked))
        return {"distance": round(float(moved.mean()), 5), "agreement": agreed.to_dict()}


def load_eraser(path: Path, bundle: Bundle) -> Eraser:
    """A saved LoRA or weight edit, on the model's device."""
    tensors, _ = read_tensors(path)
    edited = any(key.endswith(SUFFIX) for key in tensors)
    eraser = WeightEdit.load(path) if edited else EraserLora.load(path, bundle.config)
    for parameter in eraser.parameters():
        parameter.data = parameter.data.to(tree_device(bundle.tree))
    return eraser
