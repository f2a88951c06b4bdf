"""What a pass of Z-Image holds, counted; tests/training/test_zimage_memory.py compares."""

from __future__ import annotations

from ..family import Activations

ACTIVATIONS = Activations(
    drawn=22.0,
    double=18.2,
    single=16.05,
    above=14.6,
    checkpointed=1.02,
    above_checkpointed=36.5,
    above_probed=13.55,
    inputs_probed=2.6,
    attacked_double=0.0,
    attacked_single=0.0,
    above_attacked=3.15,
    attacked_checkpointed=1.1,
    freed=22.0,
    probes=3,
)
