"""What a pass of FLUX.2 holds, counted; tests/training/test_flux2_memory.py compares."""

from __future__ import annotations

from dataclasses import replace

from ..flux1 import ACTIVATIONS as FLUX1

ACTIVATIONS = replace(
    FLUX1, attacked_double=0.0, attacked_single=0.0, above_attacked=0.0, attacked_checkpointed=0.0
)
