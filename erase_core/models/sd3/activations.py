"""What a pass of Stable Diffusion 3 holds, counted; tests/training/test_sd3_memory.py compares."""

from __future__ import annotations

from ..family import Activations

ACTIVATIONS = Activations(
    drawn=22.0,
    double=14.25,
    single=4.0,
    above=10.0,
    checkpointed=1.02,
    above_checkpointed=28.0,
    above_probed=12.4,
    inputs_probed=2.05,
    attacked_double=4.0,
    attacked_single=2.0,
    above_attacked=6.0,
    attacked_checkpointed=4.0,
    freed=3.0,
    probes=3,
)
