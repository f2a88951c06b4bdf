"""Z-Image's presets: FLUX.1's, with its own guidance and the Linears that read the text alone.

All but the paper's put a relative in a concept's place, as a trial on a small single stream found
best (docs/trials/single-stream.md), with MiniFlux's weight of L_attn, which goes with that. Nobody
has measured them on the real model yet; see methods/presets.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flux1.presets import PRESETS as FLUX1

GUIDANCE = 4.0  # of a picture of the base model's, which diffusers calls 3
FEW = 8  # steps of a picture of the distilled model's, which takes no guidance
RELATIVE = {"eta": 0.0, "null": "replace", "l_attn": 0.1}
TEXT = ("text_in", "text.q", "text.k", "text.v", "text.out", "text.mlp_in", "text.mlp_out")


def _with(changes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method, presets in FLUX1.items():
        for name, preset in presets.items():
            own = {} if name == "paper" else RELATIVE
            values = {"targets": TEXT, **own, **changes, **preset["all"]}
            found.setdefault(method, {})[name] = {"measured": "", "all": values}
    return found


PRESETS = _with({"guidance_rollout": GUIDANCE})
DISTILLED = _with({"guidance_rollout": 1.0, "rollout_steps": FEW})
