"""What a pass of FLUX.2 holds, counted; tests/training/test_flux2_memory.py compares."""

from __future__ import annotations

from ..family import Activations

# Gated MLPs, three times as wide as the model, hold more than FLUX.1's. What modulates the blocks
# does not hang on the prompt, so that an attack on it keeps no more of each. An fp8 matrix that is
# widened is not at the peak of the rest unless pictures are tiny.
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
