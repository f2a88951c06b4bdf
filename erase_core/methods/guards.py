"""Guards as rows of the tables: what acts while pictures are drawn, beside what changes weights.

Every guard is one. People make guards with the command ``guard`` or the nodes, not here. A gate
needs an eraser, which its row makes first, by the method that its setting ``over`` names.
"""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any

from ..erasers.guards.base import Guard, GuardMethod, guards
from ..errors import EraseError
from ..settings import Settings, setting
from ..training.result import Result
from .base import Method, Task, find_method

OVER = setting("uce", "method that makes the eraser whose strength the gate decides")


def _row(guard: GuardMethod) -> Method:
    """A guard as a row."""
    settings: type[Settings] = guard.settings
    if guard.eraser:
        name, own = f"{settings.__name__}Over", [("over", str, OVER)]
        settings = make_dataclass(name, own, bases=(settings,), frozen=True)

    def run(task: Task, told: Any) -> Result:
        own = {name: value for name, value in told.to_dict().items() if name != "over"}
        settings = guard.settings.from_dict(own)
        tensors = _tensors(task, told.over) if guard.eraser else {}
        if guard.learn is not None:
            tensors = guard.learn(task.model.text, task.concepts, settings)
        made = Guard(guard, task.concepts, settings, tensors)
        return Result(None, told.to_dict() | {"seed": task.seed}, guard=made)

    return Method(guard.name, f"{guard.label} (guard)", guard.paper, run, settings, made="guard")


def _tensors(task: Task, name: str) -> Any:
    """The eraser of a method; EraseError for one that makes none."""
    method = find_method(name)
    eraser = method.erase(task).eraser
    if eraser is None:
        raise EraseError(f"{method.label} makes no eraser that a gate could hold; name another.")
    return eraser.tensors()


METHODS = tuple(map(_row, guards().values()))
