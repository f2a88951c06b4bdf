"""Chroma's names: Flux's blocks without modulation, and the approximator's, in both schemes."""

from __future__ import annotations

import torch

from ..flux1.names import DOUBLE, OUTER, ROLES, SINGLE, Naming
from .config import ChromaConfig
from .tree import Chroma

LAYERS = 16  # of an approximator, at most; published ones have 5
_APPROXIMATOR = "distilled_guidance_layer"
_KEPT = ("img_in", "txt_in", "final_layer.linear")
_OUTER = {
    **{name: OUTER[name] for name in _KEPT},
    f"{_APPROXIMATOR}.in_proj": (f"{_APPROXIMATOR}.in_proj",),
    f"{_APPROXIMATOR}.out_proj": (f"{_APPROXIMATOR}.out_proj",),
}
for _index in range(LAYERS):
    _layer = f"{_APPROXIMATOR}.layers.{_index}"
    _OUTER[f"{_layer}.in_layer"] = (f"{_layer}.linear_1",)
    _OUTER[f"{_layer}.out_layer"] = (f"{_layer}.linear_2",)
    _OUTER[f"{_APPROXIMATOR}.norms.{_index}"] = (f"{_APPROXIMATOR}.norms.{_index}",)


def skeleton(config: ChromaConfig) -> Chroma:
    """A Chroma tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return Chroma(config)


NAMING = Naming(
    outer=_OUTER,
    double={name: parts for name, parts in DOUBLE.items() if "_mod" not in name},
    single={name: parts for name, parts in SINGLE.items() if "modulation" not in name},
    tree=skeleton,
)
# As FLUX.1's; there is no pooled vector to read.
CHROMA_ROLES = {role: pattern for role, pattern in ROLES.items() if role != "pooled_in"}
