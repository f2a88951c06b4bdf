"""What each process of ``eraseanything many`` does: erase, examine, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import EraseError
from ..processes import Nothing
from .models import MINIFLUX, budget, open_model
from .output import sentence
from .sharing import own_card

if TYPE_CHECKING:
    from ..api import Order, Ready
    from ..concepts.sets import ConceptSet
    from ..models.base import Model
    from ..processes import Shared
    from ..training.progress import Progress


PHASES = ("text", "rollouts", "training")


class Task(NamedTuple):
    """An eraser to be made; ``name`` is that of its files."""

    name: str
    concepts: ConceptSet


@dataclass(frozen=True)
class Erasers:
    """Erasers as a job for processes."""

    args: argparse.Namespace
    changes: Mapping[str, Any]

    def open(
        self, number: int, shared: Shared
    ) -> Callable[[Task, Callable[[float], None]], dict[str, Any]]:
        return Maker(own_card(self.args, number), self.changes, shared).make

    def explain(self, error: Exception) -> str:
        return sentence(error)

    def memory_of(self, task: Task) -> int:
        """Bytes of a card that an eraser takes, as ``--dry-run`` tells them."""
        from ..methods.base import find_method

        if find_method(self.args.method).is_run:
            return foresee(self.args, self.changes, task).expected.memory
        return 0


@dataclass
class Maker:
    """Makes one eraser after another."""

    args: argparse.Namespace
    changes: Mapping[str, Any]
    shared: Shared = Nothing()
    _model: Model | None = field(default=None, init=False)

    def make(self, task: Task, tell: Callable[[float], None]) -> dict[str, Any]:
        """Erase, examine, and write the report, which is there once all is done."""
        from ..files import write_json

        path = self.args.out / f"{task.name}.safetensors"
        report: dict[str, Any] = {"concepts": task.concepts.to_json(), "file": path.name}
        if path.exists():
            _clear(path.with_suffix(".checkpoints"))
        else:
            report["seconds"] = round(self._erase(task, path, tell), 1)
        report |= self.examine(task.concepts, path)
        write_json(path.with_suffix(".json"), report)
        return report

    def model(self) -> Model:
        """The model. One that lets its text encoders go before it trains is opened anew for every
        eraser."""
        from ..methods.base import find_method

        method = find_method(self.args.method)
        if self._model is None or (method.is_run and self.args.model != MINIFLUX):
            self._model = None
            placed = method.forward and not method.is_run
            self._model = open_model(self.args, placed=placed or self.args.model == MINIFLUX)
        return self._model

    def _erase(self, task: Task, path: Path, tell: Callable[[float], None]) -> float:
        """Seconds that the eraser took, those of an earlier process among them."""
        from .. import api
        from ..methods.base import find_method
        from ..training.encoding import Remembered
        from ..training.run_folder import checkpoints, own_run_folder, remove_checkpoints

        model = self.model()
        if find_method(self.args.method).is_run:
            model = replace(model, text=Remembered(model.text, self.shared))

        def on_step(progress: Progress) -> None:
            tell(PHASES.index(progress.phase) + progress.step / progress.steps)

        with own_run_folder(path.with_suffix(".checkpoints")) as folder:
            found = order(self.args, task, self.changes, folder, bool(checkpoints(folder)))
            try:
                erased = api.erase(model, found, path, place=placing(self.args), on_step=on_step)
            except api.UnfinishedError as error:
                raise error.cause from None
            result = erased.result
            if result.stopped != "done":
                raise EraseError(result.diverged(erased.path or path))
            remove_checkpoints(folder)
        return sum(result.seconds.values())

    def examine(self, concepts: ConceptSet, path: Path) -> dict[str, Any]:
        """Verdict and marks of MiniFlux's erasers; nothing of others, which have no judge here."""
        from .. import api
        from ..erasers.load import load
        from ..evaluate.judges.recogniser import RecogniserJudge
        from ..evaluate.marks import verdict

        if not self.args.exam or self.args.model != MINIFLUX:
            return {}
        model, count = self.model(), self.args.exam
        eraser = load(path, model)
        try:
            exam, before, after = api.examine(model, concepts, eraser, RecogniserJudge(), count)
        except EraseError as error:  # concepts of several kinds, which no exam asks for together
            return {"verdict": f"not examined: {error}"}
        marks = {"marks": after.to_dict(), "untouched": before.to_dict()}
        return {"verdict": verdict(exam.title, before, after), **marks}


def order(
    args: argparse.Namespace, task: Task, changes: Mapping[str, Any], folder: Path, begun: bool
) -> Order:
    """What is asked for; a run that was ``begun`` goes on as it was."""
    from ..api import Order
    from ..methods.base import Folders
    from ..training.encoding import cache_folder

    states = cache_folder()
    if begun:
        return Order(method=args.method, folders=Folders(folder, resume=folder, states=states))
    folders = Folders(folder, states=states)
    return Order(task.concepts, args.method, args.preset, changes, args.seed, folders=folders)


def _clear(run: Path) -> None:
    """Remove what a process has left that died after it had written the eraser."""
    from ..training.run_folder import own_run_folder, remove_checkpoints

    if run.is_dir():
        with own_run_folder(run) as folder:
            remove_checkpoints(folder)


class _ToldError(Exception):
    """All is known that was asked for."""


def foresee(args: argparse.Namespace, changes: Mapping[str, Any], task: Task) -> Ready:
    """What an eraser would take; nothing is made."""
    from .. import api

    found: list[Ready] = []

    def on_ready(ready: Ready) -> None:
        found.append(ready)
        raise _ToldError

    model = open_model(args, placed=args.model == MINIFLUX)
    first = api.Order(task.concepts, args.method, args.preset, changes, args.seed)
    try:
        api.erase(model, first, args.out / "none", place=placing(args), on_ready=on_ready)
    except (_ToldError, api.UnfinishedError) as error:
        cause = error.cause if isinstance(error, api.UnfinishedError) else error
        if not isinstance(cause, _ToldError):
            raise cause from None
    return found[0]


def placing(args: argparse.Namespace) -> Callable[[Any], Any]:
    from ..training.memory import in_place, settle

    return in_place if args.model == MINIFLUX else partial(settle, budget=budget(args))
