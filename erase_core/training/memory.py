"""Which way of keeping a model fits into the memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..errors import EraseError
from ..flux.offload import Placement, Weights, block_names, device_bytes, place
from .estimate import peak_bytes
from .trainer import Trainer

USED = 0.9  # of a budget; the rest is for the allocator's gaps and the screen


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
    small = trainer.fp8 is not False
    for away in range(len(block_names(trainer.tree)) + 1):
        yield Placement(fp8=small, away=away), True
