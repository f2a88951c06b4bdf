"""What Chroma's files hold, in its makers' or diffusers' layout, under our tree's keys."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.load import check_width, under_our_keys
from ..load import read_state
from .config import ChromaConfig
from .names import NAMING


def owns(shapes: Shapes) -> bool:
    """Whether these are a Chroma's tensors, some perhaps missing: what modulates its blocks in
    either layout, and none of Radiance's, which draws pixels."""
    own = any(name.startswith("distilled_guidance_layer.") for name in shapes)
    return own and not any(name.startswith("nerf_") for name in shapes)


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys; as FLUX.1's are read."""
    return under_our_keys(NAMING, path.name, read_state(path)[0], dtype)


def sizes(shapes: Shapes) -> ChromaConfig:
    """The sizes of the transformer; EraseError when it is none."""
    config = ChromaConfig.from_shapes(shapes)
    if config.in_channels != ChromaConfig.in_channels:
        raise EraseError(
            f"This is a Chroma with {config.in_channels} input channels, which takes more than a "
            f"prompt; {advice()}."
        )
    check_width(config)
    return config
