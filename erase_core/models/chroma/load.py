"""What Chroma's files hold, in its makers' or diffusers' layout, under our tree's keys."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.config import HEAD_DIM
from ..flux1.load import read_with
from .config import ChromaConfig
from .names import NAMING


def owns(shapes: Shapes) -> bool:
    """Whether these are a Chroma's tensors, some perhaps missing: what modulates its blocks in
    either layout, and none of Radiance's, which draws pixels."""
    found = {
        part
        for name in shapes
        for part in ("distilled_guidance_layer.", "nerf_")
        if name.startswith(part)
    }
    return found == {"distilled_guidance_layer."}


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys; as FLUX.1's are read."""
    return read_with(NAMING, path, dtype)


def sizes(shapes: Shapes) -> ChromaConfig:
    """The sizes of the transformer; EraseError when it is none."""
    config = ChromaConfig.from_shapes(shapes)
    if config.in_channels != ChromaConfig.in_channels:
        raise EraseError(
            f"This is a Chroma with {config.in_channels} input channels, which takes more than a "
            f"prompt; {advice()}."
        )
    if config.hidden_size % HEAD_DIM or not config.hidden_size:
        raise EraseError(
            f"This is {config.hidden_size} wide, not a multiple of {HEAD_DIM}; {advice()}."
        )
    return config
