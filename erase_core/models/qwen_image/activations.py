"""What a pass of Qwen-Image holds, counted; tests/training/test_qwen_image_memory.py compares."""

from __future__ import annotations

from ..family import Activations

# The last block is probed by default, so that its attention is held at the peak. What modulates the
# blocks does not hang on the prompt, so that an attack on it keeps no more of each.
ACTIVATIONS = Activations(
    drawn=15.5,
    double=12.28,
    single=0.0,
    above=6.2,
    checkpointed=1.01,
    above_checkpointed=26.9,
    above_probed=10.5,
    inputs_probed=2.05,
    attacked_double=0.0,
    attacked_single=0.0,
    above_attacked=5.5,
    attacked_checkpointed=0.0,
    freed=3.0,
    probes=3,
    before_probed=6.55,
    drawn_probed=8.2,
)
