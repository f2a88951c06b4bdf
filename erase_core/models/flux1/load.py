"""What FLUX.1's files hold, in Black Forest Labs' or diffusers' layout, under our tree's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ...errors import EraseError
from ...files import read_json
from ..family import Shapes, State, advice
from ..frozen import unscale
from ..load import read_state
from .config import HEAD_DIM, BlockConfig, FluxConfig
from .names import NAMING, Naming, tree_keys

_INPUTS = {384: "FLUX.1 Fill", 128: "FLUX.1 Depth or Canny"}
# Of either layout: the pooled vector's embedder, which Chroma and FLUX.2 lack, and a module that
# HunyuanVideo has under another name.
_OWN = (
    ("vector_in.in_layer.weight", "double_blocks.0.img_attn.qkv.weight"),
    ("time_text_embed.text_embedder.linear_1.weight", "x_embedder.weight"),
)
_BLOCKS = ("double_blocks.", "single_transformer_blocks.")


def owns(shapes: Shapes) -> bool:
    """Whether these are a FLUX.1's tensors, some perhaps missing."""
    return any(
        all(name in shapes for name in names) and any(name.startswith(blocks) for name in shapes)
        for names, blocks in zip(_OWN, _BLOCKS, strict=True)
    )


def read(path: Path, dtype: torch.dtype | None = None) -> tuple[State, dict[str, float]]:
    """The tensors of a file or folder under our tree's keys, mapped, not yet compared with them.
    Also the scale of every fp8 module that has one; with ``dtype`` these are multiplied out.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised to integers, or edits pictures.
    """
    state, metadata = read_state(path)
    _refuse_kontext(path, metadata)
    return under_our_keys(NAMING, path.name, state, dtype)


def under_our_keys(
    naming: Naming, name: str, state: State, dtype: torch.dtype | None
) -> tuple[State, dict[str, float]]:
    """What :func:`read` gives, of the tensors in the file ``name`` of any family with the two
    schemes of ``naming``."""
    state, scales = unscale(name, state, advice())
    stacked = any(name.startswith("transformer_blocks.") for name in state)
    if dtype is not None or stacked:  # rows of one matrix of ours had scales of their own
        state, scales = multiplied(state, scales, dtype), {}
    try:
        return tree_keys(naming.to_bfl(state) if stacked else state), scales
    except (RuntimeError, IndexError) as error:  # of torch.cat, and of halves of a scalar
        raise EraseError(f"{name} has matrices that do not go together; {advice()}.") from error


def multiplied(
    state: State, scales: Mapping[str, float], dtype: torch.dtype | None = None
) -> State:
    """A state whose scaled matrices are plain ones of ``dtype`` (bfloat16)."""
    wide = {
        f"{module}.weight": (state[f"{module}.weight"].float() * scale).to(dtype or torch.bfloat16)
        for module, scale in scales.items()
    }
    return state | wide


def sizes(shapes: Shapes) -> FluxConfig:
    """The sizes of the transformer; EraseError when it is none or takes more than noisy latents."""
    config = FluxConfig.from_shapes(shapes)
    if config.in_channels != FluxConfig.in_channels:
        what = _INPUTS.get(config.in_channels, f"a Flux with {config.in_channels} input channels")
        raise EraseError(f"This is {what}, which takes more than a prompt; {advice()}.")
    check_width(config)
    return config


def check_width(config: BlockConfig) -> None:
    """Refuse a transformer whose heads would not be those of Flux's blocks."""
    if config.hidden_size % HEAD_DIM or not config.hidden_size:
        raise EraseError(
            f"This is {config.hidden_size} wide, not a multiple of {HEAD_DIM}; {advice()}."
        )


def _refuse_kontext(path: Path, metadata: dict[str, str]) -> None:
    """Kontext has dev's very keys: only its name tells it apart."""
    if any("kontext" in text.lower() for text in names_of(path, metadata)):
        raise EraseError(f"{path.name} is FLUX.1 Kontext, which edits pictures; {advice()}.")


def names_of(path: Path, metadata: Mapping[str, str]) -> list[str]:
    """What tells the name of a file or folder, its metadata and a pipeline's index among it."""
    told = [path.name, *(v for k, v in metadata.items() if re.search("title|name|architecture", k))]
    for index in (path / "model_index.json", path.parent / "model_index.json"):
        if index.is_file():
            told.append(str(read_json(index)))
    return told
