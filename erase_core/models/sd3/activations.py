"""What a pass of Stable Diffusion 3 holds, counted; tests/training/test_sd3_memory.py compares."""

from __future__ import annotations

from ..family import Activations

# The last block is probed by default, so that its attention is held at the peak.
ACTIVATIONS = Activations(
    drawn=22.0,
    double=13.55,
    single=0.0,
    above=10.1,
    checkpointed=1.03,
    above_checkpointed=25.3,
    above_probed=11.3,
    inputs_probed=2.05,
    attacked_double=4.0,
    attacked_single=0.0,
    above_attacked=6.0,
    attacked_checkpointed=7.5,
    freed=3.0,
    probes=3,
    before_probed=7.0,
    drawn_probed=14.0,
    second=6.06,
    second_checkpointed=11.1,
)
