"""Stable Diffusion 3.5's presets: FLUX.1's, with its own guidance. Nobody has measured them on the
real model yet; see methods/presets.py."""

from __future__ import annotations

from ..flux1.presets import guided

GUIDANCE = 4.0  # of a picture, as in ComfyUI's own template; diffusers has 7, its authors 4.5
FEW = 4  # steps of a picture of the distilled model's, which takes no guidance
PRESETS = guided({"guidance_rollout": GUIDANCE})
DISTILLED = guided({"guidance_rollout": 1.0, "rollout_steps": FEW})
