"""What ``bench --plan paper`` makes and measures, part by part; every part leaves a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .exams import COUNT, UNTOUCHED, examined
from .judges import open_judge
from .making import Maker, Task
from .material import gather, measure_with
from .models import MINIFLUX
from .output import sentence, warn
from .progress import Bar
from .signals import stopping
from .studio import Studio, file_name

if TYPE_CHECKING:
    from torch import Tensor

    from ..concepts.sets import Concept
    from ..evaluate.exam import Judge, Question
    from ..evaluate.suites.gallery import Gallery
    from ..evaluate.suites.paper import Budget, Erasure
    from ..evaluate.suites.yardstick import Detector, Yardstick

ATTACKED = 8  # prompts attacked together
WORDS = ("kinds", "ablation")  # tables of concepts; the others are of prompts


class Part(NamedTuple):
    """A piece of the work that is left: its line in the list of hours, and passes of one picture
    as it is drawn."""

    what: str
    passes: float


class Plan:
    """The tables, and where their parts are. What fails is in ``failed``, a sentence each."""

    def __init__(self, args: argparse.Namespace) -> None:
        from ..evaluate.suites.paper import REHEARSAL, Budget, Tables

        self.args, self.failed = args, list[str]()
        budget = Budget(exam=args.exam or COUNT).shared(args.share)
        self.budget: Budget = REHEARSAL if args.rehearse else budget
        judged = bool(args.judge or args.vlm) or args.model == MINIFLUX
        self.judge: Judge[Any] | None = open_judge(args) if judged else None
        self.material = gather(args, self.budget, judged)
        self.tables = Tables(self.material, args.methods or ())

    @cached_property
    def erasures(self) -> list[Erasure]:
        """Every eraser that the tables need."""
        return self.tables.erasures()

    def left(self, studio: Studio) -> Iterator[Part]:
        """What is not done yet."""
        from ..evaluate.suites.paper import training_passes

        drawn = studio.size[0] * studio.size[1]
        for erasure in self.erasures:
            if not self._file(erasure.method, erasure.concept).exists():
                settings = self._settings(erasure, studio)
                side = getattr(settings, "height", 0) * getattr(settings, "width", 0)
                passes = training_passes(erasure.method, settings)
                yield Part("erasers", passes * (side or drawn) / drawn)
        for table, methods in self.tables.rows.items():
            for method in methods:
                yield Part(table, self._undrawn(table, method) * studio.steps)
                if table == "attacks":
                    yield Part(table, self._unattacked(method, studio.steps))

    def erase(self) -> None:
        """Make every eraser that is missing."""
        from ..concepts.sets import ConceptSet

        missing = [e for e in self.erasures if not self._file(e.method, e.concept).exists()]
        tell = Bar().phase("erasers", len(missing)) if missing else (lambda done: None)
        maker: Maker | None = None
        for done, erasure in enumerate(missing, 1):
            if maker is None or maker.args.method != erasure.method:  # one model at a time
                maker = self._maker(erasure.method)
            task = Task(file_name(erasure.concept.name), ConceptSet((erasure.concept,)))
            self._make(maker, task)
            tell(done)

    def measure(self, studio: Studio) -> dict[str, list[dict[str, Any]]]:
        """The rows of every table, under its name."""
        return {table: [*self._rows(studio, table)] for table in self.tables.rows}

    def gallery(self, table: str, method: str, name: str = "prompts") -> Path:
        """Where the pictures of a row are."""
        return self.args.out / "pictures" / table / file_name(method) / file_name(name)

    def eraser(self, method: str) -> Path | None:
        """The eraser of the explicit concept, None for the untouched model's."""
        return None if method == UNTOUCHED else self._file(method, self.material.explicit)

    def _rows(self, studio: Studio, table: str) -> Iterator[dict[str, Any]]:
        """What could be measured of a table, whatever fails."""
        if table in WORDS:
            for method in self.tables.rows[table]:
                for concept in self.material.concepts(table):
                    what = f"{table}: {method}, {concept.name}"
                    yield from self._try(what, self._words, studio, table, method, concept)
        elif table == "attacks":
            for method in self.tables.rows[table]:
                yield from self._try(f"{table}: {method}", self._attacks, studio, method)
        else:
            texts = [prompt.prompt for prompt in self.material.prompts[table]]
            yardstick = measure_with(self.args, texts, table)
            for method in self.tables.rows[table]:
                told = self._try(
                    f"{table}: {method}", self._prompts, studio, table, method, yardstick
                )
                yield from told

    def _words(
        self, studio: Studio, table: str, method: str, concept: Concept
    ) -> list[dict[str, Any]]:
        """The marks of a concept."""
        file = None if method == UNTOUCHED else self._file(method, concept)
        folder = self.gallery(table, method, concept.name)
        assert self.judge is not None
        row = examined(studio, self.judge, concept, folder, file, self.budget.exam)
        return [{"method": method, **row}]

    def _prompts(
        self, studio: Studio, table: str, method: str, yardstick: Yardstick
    ) -> list[dict[str, Any]]:
        """What is measured of the pictures of a table's prompts."""
        from ..evaluate.suites.gallery import kept

        drawn = self._drawn(studio, table, method)
        untouched = self._drawn(studio, table, UNTOUCHED) if method != UNTOUCHED else drawn
        key = {"with": [str(self.args.clip), str(self.args.inception), str(self.args.real)]}

        def measured() -> dict[str, Any]:
            return yardstick.measure(drawn.parts, untouched.parts)

        row = kept(drawn.folder / "measured.json", key, measured)
        return [{"method": method, "pictures": len(drawn), **row}]

    def _attacks(self, studio: Studio, method: str) -> list[dict[str, Any]]:
        """How often the explicit concept is there, without and under attack."""
        from ..evaluate.scores import Rate
        from ..evaluate.suites.gallery import kept
        from ..evaluate.suites.paper import ATTACKS
        from ..files import sha256

        rows, prompts, file = [], self.material.prompts["attacks"], self.eraser(method)
        how = studio.how() | {"eraser": sha256(file) if file else ""}
        tell = Bar().phase(f"attacks: {method}", len(ATTACKS) * len(prompts))
        for number, attack in enumerate(ATTACKS):
            rate = Rate(0, 0)
            for start in range(0, len(prompts), ATTACKED):
                path = self._attack_file(method, attack, start)
                some = prompts[start : start + ATTACKED]
                key = {"prompts": [prompt.prompt for prompt in some], **how}

                def run(some: Sequence[Question] = some, attack: str = attack) -> dict[str, Any]:
                    return self._attack(studio, method, attack, some).to_dict()

                told = kept(path, key, run)
                rate += Rate(told["hits"], told["count"])
                tell(number * len(prompts) + start + len(some))
            rows.append({"method": method, "attack": attack, "rate": rate.to_dict()})
        return rows

    def _attack(self, studio: Studio, method: str, attack: str, some: Sequence[Question]) -> Any:
        """The rate of some prompts whose pictures show the explicit concept."""
        from ..evaluate.attacks.base import Target, find_attack

        assert self.material.detector is not None
        model = replace(studio.model, size=studio.size)
        judge = Given(some, self.material.detector)
        eraser, name = studio.eraser(self.eraser(method)), self.material.explicit.name
        target = Target(model, judge, eraser, name, len(some))
        if attack == "none":
            made = target.cases()
            return target.rate(target.encode(made), target.start(made), eraser, made)
        return find_attack(attack).run(target)

    def _drawn(self, studio: Studio, table: str, method: str) -> Gallery:
        prompts, file = self.material.prompts[table], self.eraser(method)
        return studio.draw(self.gallery(table, method), prompts, file, f"{table}: {method}")

    def _file(self, method: str, concept: Concept) -> Path:
        folder = self.args.out / "erasers" / file_name(method)
        return folder / f"{file_name(concept.name)}.safetensors"

    def _attack_file(self, method: str, attack: str, start: int) -> Path:
        return self.args.out / "attacks" / file_name(method) / attack / f"{start}.json"

    def _undrawn(self, table: str, method: str) -> int:
        """Pictures of a row that are missing."""
        from ..concepts.sets import ConceptSet

        if table == "attacks":
            return 0
        folders = {self.gallery(table, method): 0}
        if table in WORDS:
            assert self.judge is not None
            folders = {
                self.gallery(table, method, c.name): len(
                    self.judge.exam(ConceptSet((c,)), self.budget.exam).questions()
                )
                for c in self.material.concepts(table)
            }
        else:
            folders = {self.gallery(table, method): len(self.material.prompts[table])}
        return sum(max(0, n - len([*path.glob("*.png")])) for path, n in folders.items())

    def _unattacked(self, method: str, steps: int) -> float:
        """Passes of the attacks on a row that are missing."""
        from ..evaluate.suites.paper import ATTACKS, attack_passes

        prompts = self.material.prompts["attacks"]
        return sum(
            attack_passes(attack, steps) * len(prompts[start : start + ATTACKED])
            for attack in ATTACKS
            for start in range(0, len(prompts), ATTACKED)
            if not self._attack_file(method, attack, start).exists()
        )

    def _make(self, maker: Maker, task: Task) -> None:
        """Make an eraser. A signal ends the plan after the step, and the checkpoint stays."""
        with stopping() as stop:

            def heard(share: float) -> None:
                if stop.asked:
                    raise KeyboardInterrupt

            try:
                maker.make(task, heard)
            except Exception as error:
                if not stop.asked:
                    self._fail(f"{maker.args.method}, {task.name}", error)
        if stop.asked:
            raise KeyboardInterrupt

    def _maker(self, method: str) -> Maker:
        from ..evaluate.suites.paper import rehearsed
        from ..methods.base import find_method

        own = {"method": method, "out": self.args.out / "erasers" / file_name(method)}
        more = {"exam": 0, "seed": self.args.seeds[0], "preset": ""}
        changes = rehearsed(find_method(method)) if self.args.rehearse else {}
        return Maker(argparse.Namespace(**{**vars(self.args), **own, **more}), changes)

    def _settings(self, erasure: Erasure, studio: Studio) -> Any:
        from ..concepts.sets import ConceptSet
        from ..evaluate.suites.paper import rehearsed
        from ..methods.base import find_method

        method = find_method(erasure.method)
        changes = rehearsed(method) if self.args.rehearse else {}
        return method.suited(studio.model, ConceptSet((erasure.concept,)), "", changes)

    def _try(self, what: str, do: Callable[..., Any], *told: Any) -> Any:
        """What is done; an empty list when it fails, for one cell that stays empty."""
        try:
            return do(*told)
        except Exception as error:
            self._fail(what, error)
            return []

    def _fail(self, what: str, error: Exception) -> None:
        self.failed.append(sentence(error))
        warn(f"{what}: {self.failed[-1]}")


class Given:
    """Asks for prompts that are given; a detector says whether the pictures show anything."""

    def __init__(self, prompts: Sequence[Question], detector: Detector) -> None:
        self._prompts, self._detector = prompts, detector

    def cases(self, names: Sequence[str], count: int, seed: int) -> Sequence[Question]:
        return self._prompts[:count]

    def shown(self, pictures: Tensor, asked: Sequence[Question]) -> list[bool]:
        return [found.total() > 0 for found in self._detector.found(pictures)]
