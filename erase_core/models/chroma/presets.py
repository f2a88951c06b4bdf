"""Chroma's presets: FLUX.1's, with its own guidance. Nobody has measured them on the real model
yet; see methods/presets.py."""

from __future__ import annotations

from typing import Any

from ..flux1.presets import PRESETS as FLUX1

GUIDANCE = 4.0  # of a picture; ComfyUI's own template has 3.5, diffusers 5
PRESETS: dict[str, Any] = {
    method: {
        name: {"measured": "", "all": {**preset["all"], "guidance_rollout": GUIDANCE}}
        for name, preset in presets.items()
    }
    for method, presets in FLUX1.items()
}
