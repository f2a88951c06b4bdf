"""What a pass of Z-Image holds, counted; tests/training/test_zimage_memory.py compares."""

from __future__ import annotations

from ..family import Activations

# Of an eraser that changes what reads the text alone: of the refiners those of the text are kept,
# which are "single" here. The blocks of both are probed, the last of them by default, so that its
# attention is held at the peak. What modulates the blocks does not hang on the prompt.
ACTIVATIONS = Activations(
    drawn=23.5,
    double=18.05,
    single=4.0,
    above=15.4,
    checkpointed=1.0,
    above_checkpointed=42.8,
    above_probed=15.5,
    inputs_probed=2.05,
    attacked_double=0.0,
    attacked_single=0.0,
    above_attacked=0.0,
    attacked_checkpointed=0.0,
    freed=22.0,
    probes=3,
)
