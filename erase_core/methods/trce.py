"""TRCE, its first stage (Chen et al., ICCV 2025, arXiv 2503.07389), on the pooled vector.

In a text encoder that reads from left to right, the end-of-text state gathers the whole prompt. The
paper's first stage edits the cross-attention by UCE's least squares. A prompt with the concept and
its twin without it have end states e and e', and e is answered as e':

    mean |W' e - W e'|^2 + preserve mean |W' p - W p|^2 + ridge |W' - W|^2.

CLIP's pooled vector *is* its end-of-text state, and in Flux ``vector_in.in_layer`` alone reads it.
The pairs come from our own sentences, the anchor put in the concept's place; the paper has an LLM
write them. T5 reads in both directions and its end state gathers nothing, so that ``txt_in`` stays
as it is: whatever the tokens say of the concept is still said. The second stage is training.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..settings import setting
from ..training.result import Result
from . import uce
from .base import Method, Task
from .closed import Inputs, edit, spared

SOURCE = "Chen et al., TRCE, ICCV 2025"


@dataclass(frozen=True)
class TrceSettings(uce.UceSettings):
    """UCE's, with more of the old matrix given up."""

    ridge: float = setting(
        1e-3, "weight of the old matrix, a share of the mean second moment", low=1e-9, high=1e6
    )


def erase(task: Task, settings: TrceSettings) -> Result:
    """Edit the Linear that reads the pooled vector."""

    def solve(weight: Tensor, inputs: Inputs) -> Tensor:
        return uce.solve(weight, inputs, settings.preserve, settings.ridge)

    return edit(task, settings, solve, ["pooled_in"])


METHODS = (
    Method(
        "trce",
        "TRCE, stage 1",
        SOURCE,
        erase,
        TrceSettings,
        made="closed form",
        families=("flux1",),
        several=spared,
        forward=False,
    ),
)
