"""What a LoRA file says about itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from .. import __version__
from ..concepts.sets import ConceptSet
from ..methods.eraseanything.settings import TrainSettings
from ..methods.eraseanything.trainer import TrainResult

FINAL = 20  # iterations over which the final losses are averaged


def lora_metadata(
    result: TrainResult,
    concepts: ConceptSet,
    settings: TrainSettings,
    base_name: str,
    base_sha256: str,
) -> dict[str, str]:
    """Metadata of a LoRA file: our ``erase.`` keys, and the ``ss_`` ones that LoRA managers read.

    The date is a day (UTC), so that two equal runs on one day give equal bytes;
    ``SOURCE_DATE_EPOCH`` in the environment pins it.
    """
    names = ", ".join(concept.name for concept in concepts.concepts)
    ours = {
        "base": base_name,
        "base_sha256": base_sha256,
        "concepts": _json(concepts.to_json()),
        "date": _day(),
        "losses": _json(final_losses(result)),
        "settings": _json(settings.to_dict()),
        "steps": str(len(result.history)),
        "stopped": result.stopped,
        "versions": _json(_versions()),
    }
    managers = {
        "ss_base_model_version": "flux1",
        "ss_sd_model_name": base_name,
        "ss_new_sd_model_hash": base_sha256,
        "ss_network_module": "peft.tuners.lora",
        "ss_network_dim": str(settings.rank),
        "ss_network_alpha": str(settings.rank),  # the file's: its scale is baked in
        "ss_seed": str(settings.seed),
        "ss_steps": str(len(result.history)),
        "ss_training_comment": f"EraseAnything {__version__}: erases {names}",
    }
    return {"format": "pt"} | {f"erase.{key}": value for key, value in ours.items()} | managers


def final_losses(result: TrainResult) -> dict[str, float]:
    """Every loss averaged over the last FINAL iterations."""
    last = result.history[-FINAL:]
    names = sorted({name for losses in last for name in losses})
    means = {}
    for name in names:
        values = [losses[name] for losses in last if name in losses]
        means[name] = sum(values) / len(values)
    return means


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
