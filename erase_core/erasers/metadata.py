"""What an eraser's file says about itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import __version__
from ..concepts.sets import ConceptSet
from ..errors import EraseError
from ..files import parse_json
from ..models.base import Model
from ..models.files import base_hash
from .lora import DOWN

VERSION = "ss_base_model_version"
FINAL = 20  # iterations over which the final losses are averaged


class Base(NamedTuple):
    """The model that an eraser was made for: its file's ``name`` and ``sha256``, empty where they
    are unknown, and what managers call its family, its ``version``. How a host keeps
    its ``weights``, and to how many ``tokens`` its prompts are filled up."""

    name: str
    sha256: str
    version: str
    weights: str = ""
    tokens: int = 0

    @classmethod
    def of(cls, model: Model) -> Base:
        """The base of erasers that are made for ``model``."""
        about = model.weights, model.text.length
        return cls(model.name, base_hash(model), model.family.version, *about)


def metadata(
    base: Base,
    concepts: ConceptSet,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    stopped: str,
) -> dict[str, str]:
    """Our ``erase.`` keys, and the ``ss_`` ones that LoRA managers read.

    ``settings`` are the method's as plain JSON values, ``history`` the losses of every iteration.
    The date is a day (UTC), so that two equal runs on one day give equal bytes, as long as the CPU
    computes with as many ``threads``: they decide the order of its sums.
    ``SOURCE_DATE_EPOCH`` in the environment pins it.
    """
    names = ", ".join(concept.name for concept in concepts.concepts)
    ours = {
        "base": base.name,
        "base_weights": base.weights,
        "base_sha256": base.sha256,
        "concepts": _json(concepts.to_json()),
        "date": _day(),
        "history": _json(_curves(history)),
        "losses": _json(final_losses(history)),
        "settings": _json(settings),
        "steps": str(len(history)),
        "stopped": stopped,
        "text_tokens": str(base.tokens),
        "threads": str(torch.get_num_threads()),
        "versions": _json(_versions()),
    }
    managers = {
        VERSION: base.version,
        "ss_sd_model_name": base.name,
        "ss_new_sd_model_hash": base.sha256,
        "ss_seed": str(settings.get("seed", "")),
        "ss_steps": str(len(history)),
        "ss_training_comment": f"EraseAnything {__version__}: erases {names}",
    }
    return {"format": "pt"} | {f"erase.{key}": value for key, value in ours.items()} | managers


def network(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What LoRA managers read of a file's kind. A LoRA's rank is also its alpha, since the scale is
    baked in; an edit of whole weights has none."""
    ranks = [len(tensor) for name, tensor in tensors.items() if name.endswith(DOWN)]
    if not ranks:
        return {"ss_network_module": "weights"}
    rank = str(max(ranks))
    return {
        "ss_network_module": "peft.tuners.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
    }


def final_losses(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Every loss averaged over the last FINAL iterations."""
    last = history[-FINAL:]
    means = {}
    for name in sorted({name for losses in last for name in losses}):
        values = [losses[name] for losses in last if name in losses]
        means[name] = sum(values) / len(values)
    return means


def _curves(history: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Every loss of every iteration with four digits; None where it was not computed."""
    names = sorted({name for losses in history for name in losses})
    return {name: [_short(losses.get(name)) for losses in history] for name in names}


def _short(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None


def history_of(metadata: Mapping[str, str]) -> list[dict[str, float]]:
    """The losses of every iteration as a file tells them; none where it tells nothing."""
    try:
        curves = parse_json(metadata.get("erase.history", "{}")).items()
        rows = zip(*([(n, value) for value in column] for n, column in curves), strict=True)
        return [{name: float(v) for name, v in row if v is not None} for row in rows]
    except (AttributeError, TypeError, ValueError) as error:
        raise EraseError("The losses that this eraser's file tells are damaged.") from error


def _day() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(timezone.utc)
    if epoch and epoch.isdigit():
        moment = datetime.fromtimestamp(int(epoch), timezone.utc)
    return moment.date().isoformat()


def _versions() -> dict[str, str]:
    return {"erase_core": __version__} | {name: version(name) for name in ("peft", "torch")}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
