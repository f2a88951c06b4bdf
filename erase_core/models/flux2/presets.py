"""FLUX.2's presets: FLUX.1's, with its own guidance. Nobody has measured them on the real model
yet; see methods/presets.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flux1.presets import PRESETS as FLUX1

GUIDANCE = 4.0  # of a picture of the base model's; ComfyUI's own template has 5
FEW = 4  # steps of a picture of the distilled model's, which takes no guidance


def _with(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        method: {
            name: {"measured": "", "all": {**preset["all"], **changes}}
            for name, preset in presets.items()
        }
        for method, presets in FLUX1.items()
    }


PRESETS = _with({"guidance_rollout": GUIDANCE})
DISTILLED = _with({"guidance_rollout": 1.0, "rollout_steps": FEW})
