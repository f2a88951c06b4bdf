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

from ..models.base import Model
from ..settings import PRESETS

DEFAULT = "balanced"
Kinds = Mapping[str, Mapping[str, Any]]  # kind of concept -> what suits it


def presets_of(model: Model, method: str, kinds: Kinds) -> Mapping[str, Any]:
    """The presets of a method for a model: its file's, else its family's, else DEFAULT alone.

    DEFAULT is then what suits each kind of concept on any model, as the method has it.
    """
    found = model.presets.get(method) or model.family.presets.get(method) or {DEFAULT: kinds}
    return {name: found[name] for name in PRESETS if name in found}


def preset_values(known: Mapping[str, Any], preset: str, kinds: Sequence[str]) -> dict[str, Any]:
    """The values of a preset for concepts of these kinds; where kinds differ, the last one's."""
    parts = ["all", *dict.fromkeys(kinds), *(["several"] if len(kinds) > 1 else [])]
    return {name: value for part in parts for name, value in known[preset].get(part, {}).items()}
