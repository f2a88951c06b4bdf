"""What a method of erasing is, and where all of them are found.

To add a method, put a file into this folder with a tuple ``METHODS``: it is a choice of ``train``,
a node's choice if it is a ``product``, and a row of every table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..concepts.sets import Concept, ConceptSet
from ..erasers.base import Eraser
from ..errors import EraseError
from ..models.base import Model
from ..registry import collect, find
from ..settings import Settings, read_pairs
from ..training.encoding import Work
from ..training.estimate import Run
from ..training.progress import Progress
from ..training.result import Result
from ..training.states import KeepPictures
from .presets import DEFAULT, default_preset, preset_values

Made = Literal["as it is", "closed form", "trained"]
ALIASES = {"ours": "eraseanything"}  # of methods, in published tables and on command lines


@dataclass(frozen=True)
class Task:
    """Erase these concepts from this model; same seed, same eraser.

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
    checkpoints, replaces, resume
        Where a run's checkpoints go, whether older ones there give way, and one to go on from.
    states
        Where encoded prompts are kept for the next time.
    """

    model: Model
    concepts: ConceptSet
    seed: int = 0
    on_step: Callable[[Progress], None] = lambda progress: None
    on_ready: Callable[[Run], None] = lambda run: None
    on_encode: Callable[[Work], None] = lambda work: None
    pictures: KeepPictures | None = None
    checkpoints: Path | None = None
    replaces: bool = False
    resume: Path | None = None
    states: Path | None = None

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
        What this variant has instead of the defaults.
    kinds
        Kind of the first concept -> what suits it.
    made
        How its eraser comes about.
    product
        Whether people are offered it; else it is a row of tables alone.
    families
        Names of the families it works on; none: all of them.
    preset, presets
        The preset it takes unless told otherwise, and under which method's name it is looked up.
    several
        The settings for so many concepts at once.
    cost
        What it takes, where that was measured.
    finds_room
        Whether its run says when its model must be in place (``on_ready``), so that text encoders
        can go before.
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
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Made = "trained"
    product: bool = False
    families: tuple[str, ...] = ()
    preset: str = DEFAULT
    presets: str = ""
    several: Callable[[Any, int], Any] = lambda settings, count: settings
    cost: Cost | None = None
    finds_room: bool = False
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
        settings = self.suited(task.model, task.concepts, preset, changes)
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
    ) -> Any:
        """The settings for these concepts: the preset's for their kinds, then ``changes``."""
        kinds, method = [c.kind for c in concepts.concepts], self.presets or self.name
        chosen = preset or default_preset(model, method, self.preset)
        values = {n: v for n, v in _model_values(model).items() if n in self.settings.about()}
        values |= self.kinds.get(kinds[0], {})
        values |= preset_values(model, method, chosen, kinds)
        settings = self.several(self.settings().changed(values), len(kinds))
        return settings.changed({**self.own, **(changes or {})})

    def changed(self, pairs: Sequence[str]) -> Method:
        """A row of its own: the method with other settings, each told as "lr=1e-3"."""
        if not pairs:
            return self
        told = " ".join(pairs)
        return replace(
            self,
            name=f"{self.name} {told}",
            label=f"{self.label}, {told}",
            presets=self.presets or self.name,
            own={**self.own, **read_pairs(self.settings, pairs)},
        )


def _model_values(model: Model) -> dict[str, Any]:
    """Settings that a model decides, for the methods that have them."""
    height, width = model.trained or model.size
    return {"height": height, "width": width, "shift_mu": model.shift_mu}


def methods() -> dict[str, Method]:
    """All methods by name, file after file in alphabetical order."""
    return collect(__package__ or "", "METHODS", Method)


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
