"""Which way of keeping a model fits into the memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from ..errors import EraseError
from ..methods.eraseanything.trainer import Trainer
from ..models.base import Bundle
from ..models.flux1.forward import tree_device
from ..models.offload import Placement, Weights, block_names, device_bytes, place
from .estimate import PROBE_CHUNK, peak_bytes
from .states import kept_dtype

USED = 0.9  # of a budget; the rest is for the allocator's gaps and the screen
DRAWN = 22.0  # tensors as wide as the model for each token that a forward pass holds, at most
AT_ONCE = 32  # pictures at most


def fit(trainer: Trainer, budget: float) -> tuple[Placement, Weights]:
    """Place a trainer's model, whose weights are still in main memory, within ``budget`` bytes.

    The first way that fits is taken, from the fastest to the smallest: all on the device, with
    activation checkpointing, with the base in fp8, with as few blocks as need be in main memory.
    Returns it with what the weights take on the device. The prompts must be encoded.

    Raises
    ------
    EraseError
        When not even the last way fits.
    """
    expected = 0
    for placement, checkpointing in ways(trainer):
        settings = replace(trainer.settings, activation_checkpointing=checkpointing)
        weights = device_bytes(trainer.tree, placement)
        expected = peak_bytes(trainer, weights, settings)
        if expected <= USED * budget:
            trainer.settings, trainer.fp8 = settings, placement.fp8
            place(trainer.tree, trainer.device, placement)
            return placement, weights
    raise EraseError(
        f"Training needs {expected / USED / 1e9:.1f} GB on the device even with everything else in "
        f"main memory, and there are {budget / 1e9:.1f} GB; choose a smaller batch or smaller "
        "pictures."
    )


def fit_to_draw(
    bundle: Bundle, size: tuple[int, int], budget: float, *, probed: bool = False
) -> tuple[Placement, int]:
    """Place a model, whose weights are still in main memory, to draw within ``budget`` bytes.

    The first way that leaves room for one picture of ``size`` (height, width) in pixels is taken:
    all on the device, the base in fp8, as few blocks as need be in main memory. Returns it with how
    many pictures can be drawn at once. ``probed``: attention is looked at on the way.

    Raises
    ------
    EraseError
        When not even the last way fits.
    """
    tree, needed = bundle.tree, 0.0
    one = drawing_bytes(bundle, size, probed)
    for placement in (Placement(), *_small(tree)):
        weights = device_bytes(tree, placement)
        needed = weights.held + weights.widened + one
        if needed <= USED * budget:
            place(tree, tree_device(tree), placement)
            spare = USED * budget - needed
            return placement, 1 + int(min(AT_ONCE - 1, spare // one))
    raise EraseError(
        f"Drawing needs {needed / USED / 1e9:.1f} GB on the device even with everything else in "
        f"main memory, and there are {budget / 1e9:.1f} GB; choose a smaller picture."
    )


def drawing_bytes(bundle: Bundle, size: tuple[int, int], probed: bool) -> int:
    """The most that one picture's forward pass holds beside the weights."""
    config, queries = bundle.config, size[0] * size[1] // 256
    tokens = bundle.text.t5_length + queries
    row = tokens * config.hidden_size * kept_dtype(bundle.tree).itemsize
    attention = 4 * config.num_heads * min(PROBE_CHUNK, queries) * tokens if probed else 0
    return round(DRAWN * row) + attention


def free_bytes(device: torch.device) -> float:
    """Free memory of a CUDA device; elsewhere everything is taken to fit."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


def ways(trainer: Trainer) -> Iterator[tuple[Placement, bool]]:
    """Placements and whether activations are checkpointed, from the fastest to the smallest.

    A resumed run keeps its base in fp8 or not as it began: its states were made with that one.
    """
    if not trainer.fp8:
        if not trainer.settings.activation_checkpointing:
            yield Placement(), False
        yield Placement(), True
    for placement in _small(trainer.tree):
        yield replace(placement, fp8=trainer.fp8 is not False), True


def _small(tree: nn.Module) -> Iterator[Placement]:
    """In fp8, with ever more blocks in main memory."""
    for away in range(len(block_names(tree)) + 1):
        yield Placement(fp8=True, away=away)
