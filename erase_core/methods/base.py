"""What a method of erasing is, and where all of them are found.

To add a method, put a file into this folder with a tuple ``METHODS``. It is then a choice of
``train`` and a row of every table, and a node's choice if it is a ``product``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..concepts.sets import Concept, ConceptSet
from ..erasers.base import Eraser
from ..erasers.combine import Part, combine
from ..erasers.earlier import Earlier
from ..erasers.load import from_tensors
from ..errors import EraseError
from ..models.base import Model
from ..registry import collect, find
from ..settings import Settings, read_pairs
from ..training.encoding import Work
from ..training.estimate import Run
from ..training.progress import Progress
from ..training.result import Result
from ..training.states import KeepPictures
from ..training.team import Team
from .presets import DEFAULT, Kinds, preset_values, presets_of

Made = Literal["as it is", "closed form", "trained", "guard"]
ALIASES = {"ours": "eraseanything"}  # of methods, in published tables and on command lines


class Folders(NamedTuple):
    """The folder of a run's ``checkpoints``, where it ``replaces`` older ones, and a checkpoint to
    ``resume`` from, or a folder of them. Closed forms keep encoded prompts in ``states``."""

    checkpoints: Path | None = None
    replaces: bool = False
    resume: Path | None = None
    states: Path | None = None


@dataclass(frozen=True)
class Task:
    """Erase these concepts from this model; same seed, same eraser, on a CPU with as many threads.

    Attributes
    ----------
    on_step
        Hears of every step, and may raise KeyboardInterrupt to end the work.
    on_ready
        Hears of a run whose prompts are encoded, before it needs its model in place. Methods that
        are no such run want it in place from the start.
    on_encode
        Hears what encoding the prompts takes, of methods that run no transformer.
    pictures
        Stand for what must stay, where a method takes any.
    folders
        Where a run's checkpoints go, and come from; where encoded prompts are kept.
    earlier
        An eraser that the work starts from; ``concepts`` begin with its own.
    team
        The processes that a run shares its work with.
    """

    model: Model
    concepts: ConceptSet
    seed: int = 0
    on_step: Callable[[Progress], None] = lambda progress: None
    on_ready: Callable[[Run], None] = lambda run: None
    on_encode: Callable[[Work], None] = lambda work: None
    pictures: KeepPictures | None = None
    folders: Folders = Folders()
    earlier: Earlier | None = None
    team: Team = Team()

    @property
    def concept(self) -> Concept:
        """The first concept, for methods that know only one."""
        return self.concepts.concepts[0]

    def steps(self, total: int) -> Callable[[int], None]:
        """A function to be called with the number of steps done, of ``total``."""
        began = time.monotonic()

        def done(count: int) -> None:
            left = (time.monotonic() - began) / count * (total - count)
            self.on_step(Progress("training", count, total, {}, left))

        return done


class Cost(NamedTuple):
    """What one thing takes on MiniFlux: median seconds on two CPU cores, and the process's most
    memory in GB (docs/results/cells.csv)."""

    seconds: float
    memory_gb: float


@dataclass(frozen=True)
class Method:
    """A way of erasing.

    Attributes
    ----------
    name, label
        On command lines and in files; in tables and plots.
    paper
        What it follows.
    run
        Does the work: ``run(task, settings)`` gives the eraser, or the whole result of a run; None
        leaves the model as it is.
    settings
        All that it can be told, with good defaults.
    own
        What this variant has, whatever the preset says.
    kinds
        Kind of concept -> what suits it, on models without presets for the method.
    made
        How its eraser comes about; "guard": it acts while pictures are drawn, and has none.
    product
        Whether people are offered it; else it is a row of tables alone.
    families
        Names of the families it works on; none: all of them.
    preset, presets_of
        The preset it takes unless told otherwise, and the method whose presets it takes (its own).
    several
        The settings for so many concepts at once.
    growing
        The settings for so many concepts that an eraser has already and so many that it gets; None:
        the method extends none.
    added
        Whether it erases each concept by itself and adds the changes.
    cost
        What it takes, where that was measured.
    is_run
        Whether it is a run that can be resumed. It says when its model must be in place
        (``on_ready``), so that text encoders can go before.
    forward
        Whether it runs the transformer; one that does not reads a few of its matrices, which may
        stay where they are.
    """

    name: str
    label: str
    paper: str
    run: Callable[[Task, Any], Result | Eraser | None]
    settings: type[Settings] = Settings
    own: Mapping[str, Any] = field(default_factory=dict)
    kinds: Kinds = field(default_factory=dict)
    made: Made = "trained"
    product: bool = False
    families: tuple[str, ...] = ()
    preset: str = DEFAULT
    presets_of: str = ""
    several: Callable[[Any, int], Any] = lambda settings, count: settings
    growing: Callable[[Any, int, int], Any] | None = None
    added: bool = False
    cost: Cost | None = None
    is_run: bool = False
    forward: bool = True

    def erase(
        self, task: Task, preset: str = "", changes: Mapping[str, Any] | None = None
    ) -> Result:
        """Do the work with the settings that suit the model and its concepts, and ``changes``.

        Raises
        ------
        EraseError
            When the method does not work on the model's family.
        """
        if self.families and task.model.family.name not in self.families:
            raise EraseError(f"{self.label} works on {', '.join(self.families)} only.")
        if self.added:
            return self._add(task, preset, changes)
        settings = self.suited(task.model, task.concepts, preset, changes, task.earlier)
        began = time.monotonic()
        made = self.run(task, settings)
        if isinstance(made, Result):
            return replace(made, method=self.name)
        seconds = {"training": time.monotonic() - began}
        told = settings.to_dict() | {"seed": task.seed}
        return Result(made, told, seconds=seconds, method=self.name)

    def suited(
        self,
        model: Model,
        concepts: ConceptSet,
        preset: str = "",
        changes: Mapping[str, Any] | None = None,
        earlier: Earlier | None = None,
    ) -> Any:
        """The settings for these concepts, which begin with those of an ``earlier`` eraser. What
        comes later has the last word:

        1. the defaults of ``settings``, and the model's own size and shift;
        2. the preset (``preset``, else ``self.preset`` where the model has it, else "balanced"):
           from the model's file, else its family's, else ``kinds``; in it "all", then each kind of
           concept, then "several";
        3. what ``several`` makes of them for more than one concept, or ``growing``;
        4. this variant's ``own``, then ``changes``.

        Raises
        ------
        EraseError
            When the model has no such preset for the method, a value cannot be, or the method
            extends no eraser.
        """
        if earlier and self.growing is None:
            raise EraseError(f"{self.label} extends no eraser; choose eraseanything.")
        kinds, method = [c.kind for c in concepts.concepts], self.presets_of or self.name
        offered = presets_of(model, method, self.kinds)
        chosen = preset or (self.preset if self.preset in offered else DEFAULT)
        if chosen not in offered:
            told = ", ".join(offered)
            raise EraseError(
                f"{model.name} has no preset {chosen} for {method}; choose from {told}."
            )
        values = {n: v for n, v in _model_values(model).items() if n in self.settings.about()}
        values |= preset_values(offered, chosen, kinds)
        settings = self.settings().changed(values)
        if earlier and self.growing:
            known = len(earlier.concepts.concepts)
            settings = self.growing(settings, known, len(kinds) - known)
        else:
            settings = self.several(settings, len(kinds))
        return settings.changed({**self.own, **(changes or {})})

    def _add(self, task: Task, preset: str, changes: Mapping[str, Any] | None) -> Result:
        """Each concept's eraser, their changes added (ranks stacked); the settings are the first's.

        Only the last run could let the text encoders go, and no checkpoint speaks for several runs.
        """
        one, made = replace(self, added=False), list[Result]()
        task = replace(task, on_ready=lambda run: None, folders=Folders())
        for concept in task.concepts.concepts:
            alone = replace(task, concepts=ConceptSet((concept,)))
            made.append(one.erase(alone, preset, changes))
            if made[-1].stopped != "done":
                return replace(made[-1], history=())  # of a part of the concepts nothing is kept
        parts = [Part(result.eraser.tensors(), 1.0, {}) for result in made if result.eraser]
        linears = task.model.family.linears(task.model.config)
        seconds = {"training": sum(sum(result.seconds.values()) for result in made)}
        eraser = from_tensors(combine(parts), linears, self.name)
        return Result(eraser, made[0].settings, seconds=seconds, method=self.name)

    def changed(self, pairs: Sequence[str]) -> Method:
        """A row of its own: the method with other settings, each told as "lr=1e-3"."""
        if not pairs:
            return self
        own = read_pairs(self.settings, pairs)
        if "seed" in own:
            raise EraseError("A row's seed is none of its settings; name seeds with --seeds.")
        told = " ".join(pairs)
        return replace(
            self,
            name=f"{self.name} {told}",
            label=f"{self.label}, {told}",
            presets_of=self.presets_of or self.name,
            own={**self.own, **own},
        )


def _model_values(model: Model) -> dict[str, Any]:
    """Settings that a model decides, for the methods that have them."""
    height, width = model.trained or model.size
    return {"height": height, "width": width, "shift_mu": model.shift_mu}


def methods() -> dict[str, Method]:
    """All methods by name, file after file in alphabetical order."""
    return collect(__package__ or "", "METHODS", Method, "method")


def find_method(name: str) -> Method:
    """A method by its name, or with other settings: "esd-x lr=2e-4 eta=0".

    EraseError, listing what there is, for any other.
    """
    plain, *changes = plain_name(name).split() or [name]
    return find(methods(), plain, "method").changed(changes)


def plain_name(name: str) -> str:
    """The name of a method or of a row of tables as it is today."""
    first, *rest = name.split() or [name]
    return " ".join([ALIASES.get(first, first), *rest])
