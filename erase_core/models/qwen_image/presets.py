"""Qwen-Image's presets: FLUX.1's, with its own guidance. Nobody has measured them on the real model
yet; see methods/presets.py."""

from __future__ import annotations

from ..flux1.presets import guided

GUIDANCE = 4.0  # of a picture, as its authors have it; ComfyUI's own template has 2.5
FEW = 8  # steps of a picture of a distilled model's, which takes no guidance
PRESETS = guided({"guidance_rollout": GUIDANCE})
DISTILLED = guided({"guidance_rollout": 1.0, "rollout_steps": FEW})
