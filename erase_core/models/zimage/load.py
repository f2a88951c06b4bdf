"""What Z-Image's files hold, in its authors' or diffusers' layout, under our tree's keys."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.config import HEAD_DIM
from ..flux1.load import multiplied
from ..frozen import unscale
from ..load import read_state
from .config import ZImageConfig
from .names import from_diffusers

# Modules that variants have beside those of the text-to-image models.
_VARIANTS = {
    "siglip_embedder.": "a Z-Image that edits pictures",
    "dec_net.": "a Z-Image that draws pixels",
}
_UNUSED = "norm_final.weight"  # of Lumina's code; some files carry it


def owns(shapes: Shapes) -> bool:
    """Whether these are a Z-Image's tensors, some perhaps missing: Lumina 2 has the same blocks,
    but no token to fill up with."""
    blocks = any(name.startswith("context_refiner.") for name in shapes)
    return blocks and "cap_pad_token" in shapes


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys; as FLUX.1's are read."""
    state, scales = unscale(path.name, read_state(path)[0], advice())
    state.pop(_UNUSED, None)
    apart = any(".to_q." in name for name in state)
    if dtype is not None or apart:  # rows of one matrix of ours had scales of their own
        state, scales = multiplied(state, scales, dtype), {}
    try:
        return from_diffusers(state) if apart else state, scales
    except RuntimeError as error:  # of torch.cat
        raise EraseError(
            f"{path.name} has matrices that do not go together; {advice()}."
        ) from error


def sizes(shapes: Shapes) -> ZImageConfig:
    """The sizes of the transformer; EraseError when it is none, or takes more than a prompt."""
    for start, what in _VARIANTS.items():
        if any(name.startswith(start) for name in shapes):
            raise EraseError(f"This is {what}; {advice()}.")
    config = ZImageConfig.from_shapes(shapes)
    if config.hidden_size % HEAD_DIM or not config.hidden_size:
        raise EraseError(
            f"This is {config.hidden_size} wide, not a multiple of {HEAD_DIM}; {advice()}."
        )
    return config
