"""Guards as rows of the tables: what acts while pictures are drawn, beside what changes weights.

Every guard is one. People make guards with the command ``guard`` or the nodes, not here. The method
that its setting ``over`` names makes an eraser first. A gate decides that eraser's strength; any
other guard acts while the erased model draws.
"""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any

from ..erasers.base import Eraser
from ..erasers.guards.base import Guard, GuardMethod, guards
from ..errors import EraseError
from ..settings import Settings, setting
from ..training.result import Result
from .base import Method, Task, find_method

GATED = setting("uce", "method that makes the eraser whose strength the gate decides")
UNDER = setting("", "method that makes an eraser for the model under the guard; empty: none")


def _row(guard: GuardMethod) -> Method:
    """A guard as a row."""
    own = [("over", str, GATED if guard.eraser else UNDER)]
    base: type[Settings] = guard.settings
    settings: type[Settings] = make_dataclass(
        f"{base.__name__}Over", own, bases=(base,), frozen=True
    )

    def run(task: Task, told: Any) -> Result:
        plain = {name: value for name, value in told.to_dict().items() if name != "over"}
        settings = guard.settings.from_dict(plain)
        eraser = _eraser(task, told.over) if told.over else None
        tensors = eraser.tensors() if guard.eraser and eraser else {}
        if guard.learn is not None:
            tensors = guard.learn(task.model.text, task.concepts, settings)
        made = Guard(guard, task.concepts, settings, tensors)
        under = None if guard.eraser else eraser
        return Result(under, told.to_dict() | {"seed": task.seed}, guard=made)

    return Method(guard.name, f"{guard.label} (guard)", guard.paper, run, settings, made="guard")


def _eraser(task: Task, name: str) -> Eraser:
    """The eraser of a method; EraseError for one that makes none."""
    method = find_method(name)
    eraser = method.erase(task).eraser
    if eraser is None:
        raise EraseError(f"{method.label} makes no eraser that a guard could hold; name another.")
    return eraser


METHODS = tuple(map(_row, guards().values()))
