"""The one door: open a model, erase from it, draw with it, examine an eraser.

The command line, the nodes and the suites go through these verbs, with the types of their rooms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .concepts.sets import ConceptSet
from .erasers.earlier import Earlier
from .erasers.metadata import Base
from .errors import EraseError
from .evaluate.exam import Exam, Judge
from .evaluate.marks import Marks
from .machine import choose_device, fast_dtype, using_threads
from .methods.base import Folders, Task, find_method
from .miniatures import miniflux
from .models.base import Adapter, Model
from .models.files import Files, open_files
from .training.encoding import Work
from .training.estimate import Estimate, Run, estimate
from .training.memory import Kept, settle
from .training.progress import NewBar, Progress
from .training.result import BrokenError, Result
from .training.run_folder import run_concepts, run_settings
from .training.save import rescue, save_result
from .training.states import KeepPictures
from .training.team import Team


def open_model(
    source: Files | None = None,
    device: str = "",
    *,
    deterministic: bool = False,
    placed: bool = True,
) -> Model:
    """The model in ``source``, or the bundled MiniFlux, on ``device`` (the best there is).

    Without ``placed`` it stays in main memory until :func:`erase` finds room for it.
    ``deterministic`` repeats exactly on CUDA, too, and is slower.

    Raises
    ------
    EraseError
        When there is no such device, or the files are no model that is known.
    """
    where = choose_device(device, deterministic)
    if source is not None:
        return open_files(source, where, placed=placed)
    model = miniflux.load(fast_dtype(where))
    if placed:
        model.tree.to(where)
    model.tree.compute_device = where  # type: ignore[assignment]
    return model


@dataclass(frozen=True)
class Order:
    """What is to be erased, and how.

    ``concepts`` may be left out of a run that is resumed. ``changes`` are settings of the method
    that differ from the preset's. ``pictures`` stand for the words that must stay. ``earlier`` is
    an eraser to start from; ``concepts`` begin with its own. One of a ``team`` writes files.
    """

    concepts: ConceptSet | None = None
    method: str = "eraseanything"
    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    pictures: KeepPictures | None = None
    folders: Folders = Folders()
    earlier: Earlier | None = None
    team: Team = Team()


class Ready(NamedTuple):
    """A run whose prompts are encoded and whose model is in place: what it will take, and how its
    base is kept, in words."""

    run: Run
    expected: Estimate
    kept: str


class Erased(NamedTuple):
    """How a run ended, what it erases, and where its file is (None: there was nothing to write)."""

    result: Result
    concepts: ConceptSet
    path: Path | None


class UnfinishedError(Exception):
    """A run that ``cause`` broke off; its work so far is in ``path``, unless that is None."""

    def __init__(self, cause: BaseException, path: Path | None) -> None:
        super().__init__(str(cause))
        self.cause, self.path = cause, path


def erase(
    model: Model,
    order: Order,
    out: Path,
    *,
    place: Callable[[Run], Kept] = settle,
    threads: int = 0,
    on_ready: Callable[[Ready], None] = lambda ready: None,
    on_encode: Callable[[Work], None] = lambda work: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Erased:
    """Make the eraser that is ordered and write it to ``out``, or beside it if it ends early.

    ``place`` brings the model of a run to where it computes; ``threads`` as
    :func:`.machine.using_threads` has them. KeyboardInterrupt, raised by ``on_step``, is a cancel.

    Raises
    ------
    EraseError
        Before the work begins, for what cannot be, and when the file cannot be written.
    UnfinishedError
        When something breaks the run off.
    """
    method = find_method(order.method)
    resume = order.folders.resume
    concepts = order.concepts or run_concepts(resume or out)
    changes = (run_settings(resume) if resume else {}) | dict(order.changes)
    runs: list[Run] = []

    def ready(run: Run) -> None:
        runs.append(run)
        kept = place(run)
        on_ready(Ready(run, estimate(run, kept.weights), kept.how))

    given = (order.pictures, order.folders, order.earlier, order.team)
    task = Task(model, concepts, order.seed, on_step, ready, on_encode, *given)
    with using_threads(model.device, threads):
        try:
            result = method.erase(task, order.preset, changes)
        except BrokenError as broken:
            lost = order.team.rank or not broken.result.history
            known = None if lost else Base.of(model)
            path = rescue(broken.result, concepts, known, out) if known else None
            raise UnfinishedError(broken.cause, path) from broken.cause
        if (
            order.team.rank or result.stopped != "done" and not result.history
        ):  # no big file is hashed for nothing
            return Erased(result, concepts, None)
        try:
            return Erased(result, concepts, save_result(result, concepts, Base.of(model), out))
        except EraseError:
            for run in runs:
                run.keep()
            raise


def draw(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    eraser: Adapter | None = None,
    **options: Any,
) -> Tensor:
    """Pictures (N, H, W, 3) uint8, one of each prompt and seed; ``options`` as Model.draw's."""
    return model.generate(prompts, seeds, eraser, **options)


class Examined(NamedTuple):
    """Questions, and the marks of the untouched model and with the eraser."""

    exam: Exam[Any]
    untouched: Marks
    marks: Marks


def examine(
    model: Model,
    concepts: ConceptSet,
    eraser: Adapter | None,
    judge: Judge[Any],
    count: int,
    seed: int = 0,
    bar: NewBar = lambda label, total: lambda done: None,
) -> Examined:
    """Ask about ``count`` questions a role, without and with the eraser; ``bar`` starts a bar."""
    exam = judge.exam(concepts, count, seed)
    total = len(exam.questions())
    before = exam.draw(model, None, on_batch=bar("exam before", total))
    after = exam.draw(model, eraser, on_batch=bar("exam after", total))
    return Examined(exam, judge.mark(exam, before), judge.mark(exam, after))
