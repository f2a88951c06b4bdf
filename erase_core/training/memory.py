"""Which way of keeping a model fits into the memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from ..errors import EraseError
from ..models.base import CHUNK, Model, kept_dtype
from ..models.offload import Placement, Weights, block_names, device_bytes, place
from .estimate import Run, peak_bytes

USED = 0.9  # of a budget; the rest is for the allocator's gaps and the screen
AT_ONCE = 32  # pictures at most


def fit(run: Run, budget: float) -> tuple[Placement, Weights]:
    """Place a run's model, whose weights are still in main memory, within ``budget`` bytes.

    The first way that fits is taken, from the fastest to the smallest. These are all on the device,
    activation checkpointing, the base in fp8, as few blocks as need be in main memory. Returns it
    with what the weights take on the device. The prompts must be encoded.

    Raises
    ------
    EraseError
        When not even the last way fits.
    """
    model, load, expected = run.model, run.workload(), 0
    for placement, checkpointing in ways(run):
        weights = device_bytes(model.tree, model.family.blocks, placement)
        expected = peak_bytes(model, replace(load, checkpointing=checkpointing), weights)
        if expected <= USED * budget:
            run.checkpointing, run.fp8 = checkpointing, placement.fp8
            place(model.tree, model.family.blocks, model.device, placement)
            return placement, weights
    raise EraseError(
        f"Training needs {expected / USED / 1e9:.1f} GB on the device even with everything else in "
        f"main memory, and there are {budget / 1e9:.1f} GB; choose a smaller batch or smaller "
        "pictures."
    )


class Kept(NamedTuple):
    """How a run's base is kept, in words, and what its weights take on the device."""

    how: str
    weights: Weights


def settle(run: Run, budget: float | None = None) -> Kept:
    """Let the text encoders go and bring a run's model to its device, within ``budget`` bytes
    (None: what is free). EraseError when it does not fit."""
    run.model.text.release()
    placement, weights = fit(run, free_bytes(run.model.device) if budget is None else budget)
    recomputed = ", activations recomputed" if run.checkpointing else ""
    return Kept(f"{placement}{recomputed}", weights)


def in_place(run: Run) -> Kept:
    """A run's model that is where it computes already, its text encoders with it."""
    model = run.model
    return Kept("the base as it is", device_bytes(model.tree, model.family.blocks, Placement()))


def fit_to_draw(
    model: Model, size: tuple[int, int], budget: float, *, probed: bool = False
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
    tree, blocks, needed = model.tree, model.family.blocks, 0.0
    one = drawing_bytes(model, size, probed)
    for placement in (Placement(), *_small(model)):
        weights = device_bytes(tree, blocks, placement)
        needed = weights.held + weights.widened + one
        if needed <= USED * budget:
            place(tree, blocks, model.device, placement)
            spare = USED * budget - needed
            return placement, 1 + int(min(AT_ONCE - 1, spare // one))
    raise EraseError(
        f"Drawing needs {needed / USED / 1e9:.1f} GB on the device even with everything else in "
        f"main memory, and there are {budget / 1e9:.1f} GB; choose a smaller picture."
    )


def drawing_bytes(model: Model, size: tuple[int, int], probed: bool) -> int:
    """The most that one picture's forward pass holds beside the weights."""
    config, queries = model.config, model.family.latents.tokens(*size)
    tokens = model.text.length + queries
    row = tokens * config.hidden_size * kept_dtype(model.tree).itemsize
    attention = 4 * config.num_heads * min(CHUNK, queries) * tokens if probed else 0
    kept = model.family.activations
    found = kept.drawn * row + attention
    if kept.drawn_probed:
        found = max(found, kept.drawn_probed * row + 2 * attention)
    return round(found)


def free_bytes(device: torch.device) -> float:
    """Free memory of a CUDA device; elsewhere everything is taken to fit."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")


def ways(run: Run) -> Iterator[tuple[Placement, bool]]:
    """Placements and whether activations are checkpointed, from the fastest to the smallest.

    A resumed run keeps its base in fp8 or not as it began: its states were made with that one.
    """
    if not run.fp8:
        if not run.checkpointing:
            yield Placement(), False
        yield Placement(), True
    for placement in _small(run.model):
        yield replace(placement, fp8=run.fp8 is not False), True


def _small(model: Model) -> Iterator[Placement]:
    """In fp8, with ever more blocks in main memory."""
    for away in range(len(block_names(model.tree, model.family.blocks)) + 1):
        yield Placement(fp8=True, away=away)
