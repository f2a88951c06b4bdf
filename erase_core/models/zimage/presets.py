"""Z-Image's presets: FLUX.1's, with its own guidance, the Linears that read the text alone, and a
relative in a concept's place, as a trial on a small single stream found best
(docs/trials/single-stream.md). Nobody has measured them on the real model yet; see
methods/presets.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flux1.presets import PRESETS as FLUX1

GUIDANCE = 4.0  # of a picture of the base model's, which diffusers calls 3
FEW = 8  # steps of a picture of the distilled model's, which takes no guidance
TEXT = ("text_in", "text.q", "text.k", "text.v", "text.out", "text.mlp_in", "text.mlp_out")


def _with(changes: Mapping[str, Any]) -> dict[str, Any]:
    own = {"targets": TEXT, "eta": 0.0, "null": "replace", **changes}
    return {
        method: {
            name: {"measured": "", "all": {**own, **preset["all"]}}
            for name, preset in presets.items()
        }
        for method, presets in FLUX1.items()
    }


PRESETS = _with({"guidance_rollout": GUIDANCE})
DISTILLED = _with({"guidance_rollout": 1.0, "rollout_steps": FEW})
