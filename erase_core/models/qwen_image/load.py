"""What Qwen-Image's files hold, in the layout that its authors, ComfyUI and diffusers share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from ...errors import EraseError
from ..family import Shapes, State, advice
from ..flux1.config import HEAD_DIM
from ..flux1.load import multiplied, names_of
from ..frozen import unscale
from ..load import read_state
from .config import QwenImageConfig

EDITS = "Qwen-Image-Edit, which edits pictures"
EDITS_SEVERAL = "Qwen-Image-Edit-Plus, which edits several pictures"
LAYERED = "Qwen-Image-Layered, which splits a picture into layers"
# Words in the names of variants, whose tensors may be the base model's; the first that is found.
_NAMES = {
    "layered": LAYERED,
    "2509": EDITS_SEVERAL,
    "2511": EDITS_SEVERAL,
    "editplus": EDITS_SEVERAL,
    "edit": EDITS,
}
# And tensors that only some of them have.
_TENSORS = {
    "time_text_embed.addition_t_embedding.weight": LAYERED,
    "__index_timestep_zero__": EDITS_SEVERAL,
}


def owns(shapes: Shapes) -> bool:
    """Whether these are a Qwen-Image's tensors, some perhaps missing."""
    blocks = any(name.startswith("transformer_blocks.") for name in shapes)
    return blocks and ("txt_norm.weight" in shapes or "txt_in.weight" in shapes)


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder; as FLUX.1's are read.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised to integers, or edits pictures.
    """
    state, metadata = read_state(path)
    what = named(names_of(path, metadata))
    if what:
        raise EraseError(f"{path.name} is {what}; {advice()}.")
    state, scales = unscale(path.name, state, advice())
    return (state, scales) if dtype is None else (multiplied(state, scales, dtype), {})


def named(told: Iterable[str]) -> str:
    """What a model is called whose names tell that it takes more than a prompt; "" for none."""
    text = " ".join(told).lower().replace("-", "").replace("_", "").replace(" ", "")
    return next((what for word, what in _NAMES.items() if word in text), "")


def sizes(shapes: Shapes) -> QwenImageConfig:
    """The sizes of the transformer; EraseError when it is none, or takes more than a prompt."""
    for tensor, what in _TENSORS.items():
        if tensor in shapes:
            raise EraseError(f"This is {what}; {advice()}.")
    config = QwenImageConfig.from_shapes(shapes)
    if config.in_channels != QwenImageConfig.in_channels:
        raise EraseError(
            f"This is a Qwen-Image with {config.in_channels} input channels, which takes more than "
            f"a prompt; {advice()}."
        )
    if config.hidden_size % HEAD_DIM or not config.hidden_size:
        raise EraseError(
            f"This is {config.hidden_size} wide, not a multiple of {HEAD_DIM}; {advice()}."
        )
    return config
