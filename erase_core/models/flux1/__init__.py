"""FLUX.1: 19 blocks with a text and an image stream, 38 with one; CLIP-L's pooled vector and T5."""

from __future__ import annotations

from ..base import Family
from .forward import flux_forward
from .names import ALIASES, ROLES, linear_slots
from .presets import PRESETS

FAMILY = Family(
    name="flux1",
    label="FLUX.1",
    blocks=("double_blocks", "single_blocks"),
    roles=ROLES,
    aliases=ALIASES,
    linears=linear_slots,
    forward=flux_forward,
    presets=PRESETS,
)
