"""Chroma's presets: FLUX.1's, with its own guidance. Nobody has measured them on the real model
yet; see methods/presets.py."""

from __future__ import annotations

from ..flux1.presets import guided

GUIDANCE = 4.0  # of a picture; ComfyUI's own template has 3.5, diffusers 5
PRESETS = guided({"guidance_rollout": GUIDANCE})
