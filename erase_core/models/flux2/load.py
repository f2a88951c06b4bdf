"""What FLUX.2's files hold, in Black Forest Labs' or diffusers' layout, under our tree's keys."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.load import check_width, under_our_keys
from ..load import read_state
from .config import Flux2Config
from .names import NAMING


def owns(shapes: Shapes) -> bool:
    """Whether these are a FLUX.2's tensors, some perhaps missing: what modulates all blocks, in
    either layout."""
    return any(name.startswith("double_stream_modulation_img.lin") for name in shapes)


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys; as FLUX.1's are read."""
    return under_our_keys(NAMING, path.name, read_state(path)[0], dtype)


def sizes(shapes: Shapes) -> Flux2Config:
    """The sizes of the transformer; EraseError when it is none, or another than klein."""
    config = Flux2Config.from_shapes(shapes)
    check_klein(config, f"This is FLUX.2-dev, whose text encoder is not read here; {advice()}.")
    if config.in_channels != Flux2Config.in_channels:
        raise EraseError(
            f"This is a FLUX.2 with {config.in_channels} input channels, which takes more than a "
            f"prompt; {advice()}."
        )
    check_width(config)
    return config


def check_klein(config: Flux2Config, otherwise: str) -> None:
    """Refuse FLUX.2-dev, the one with guidance for an input, with the sentence ``otherwise``."""
    if config.guidance_embed:
        raise EraseError(otherwise)
