"""Presets: which settings suit a family of models and a kind of concept.

A family has its own, and a model's file may bring others as JSON in its metadata
(``erase.presets``)::

    {"eraseanything": {"balanced": {
        "measured": "MiniFlux, six concepts a kind",
        "all": {"lr_low": 5e-4},
        "relationship": {"steps": 1200},
        "several": {"lr_low": 1e-3}}}}

"measured" says on what, and is empty where nobody has; "several" is for several concepts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import EraseError
from ..models.base import Model

PRESETS = ("fast", "balanced", "robust", "paper")
DEFAULT = "balanced"


def presets(model: Model, method: str) -> Mapping[str, Any]:
    """The presets of a method for a model: its file's, else its family's."""
    found = model.presets.get(method, model.family.presets.get(method, {}))
    return {name: found[name] for name in PRESETS if name in found}


def default_preset(model: Model, method: str, wanted: str) -> str:
    """``wanted`` where a model has it for the method, else DEFAULT."""
    return wanted if wanted in presets(model, method) else DEFAULT


def preset_values(model: Model, method: str, preset: str, kinds: Sequence[str]) -> dict[str, Any]:
    """The values of a preset for concepts of these kinds.

    A method without presets for the model has its own defaults, which are called DEFAULT.

    Raises
    ------
    EraseError
        When the model has no such preset for the method.
    """
    known = presets(model, method)
    if not known and preset == DEFAULT:
        return {}
    if preset not in known:
        told = ", ".join(known or [DEFAULT])
        raise EraseError(f"{model.name} has no preset {preset} for {method}; choose from {told}.")
    chosen = known[preset]
    parts = ["all", *dict.fromkeys(kinds), *(["several"] if len(kinds) > 1 else [])]
    return {name: value for part in parts for name, value in chosen.get(part, {}).items()}
