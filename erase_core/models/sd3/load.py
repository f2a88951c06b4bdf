"""What Stable Diffusion 3's files hold, in its authors' or diffusers' layout, under our tree's
keys."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.load import under_our_keys
from ..load import read_state
from .config import HEAD, SD3Config
from .names import NAMING, PLACES

_THEIRS = {"pos_embed.proj.weight", "transformer_blocks.0.attn.add_q_proj.weight"}  # diffusers'


def owns(shapes: Shapes) -> bool:
    """Whether these are a Stable Diffusion 3's tensors in either layout, some perhaps missing."""
    return any(name.startswith("joint_blocks.") for name in shapes) or shapes.keys() >= _THEIRS


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys; as FLUX.1's are read."""
    state, scales = under_our_keys(NAMING, path.name, read_state(path)[0], dtype)
    if PLACES[1] in state:
        state[PLACES[0]] = state.pop(PLACES[1])
    return state, scales


def sizes(shapes: Shapes) -> SD3Config:
    """The sizes of the transformer; EraseError when it is none, or takes more than a prompt."""
    if any(name.startswith("context_processor.") for name in shapes):
        raise EraseError(f"This is a Stable Diffusion 3 that was never published; {advice()}.")
    config = SD3Config.from_shapes(shapes)
    if config.in_channels != SD3Config.in_channels:
        raise EraseError(
            f"This is a Stable Diffusion 3 with {config.in_channels} input channels, which takes "
            f"more than a prompt; {advice()}."
        )
    if config.hidden_size % HEAD or not config.hidden_size:
        raise EraseError(
            f"This is {config.hidden_size} wide, not a multiple of {HEAD}; {advice()}."
        )
    return config
