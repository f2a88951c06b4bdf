"""What a run will take, told before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch

from ..models.base import CHUNK, Adapter, Conditioning, Model, Sizes, kept_dtype
from ..models.offload import Weights
from .preview import Preview
from .progress import Losses
from .prompts import EncodedPrompts


@dataclass(frozen=True)
class Workload:
    """What a run asks of the machine.

    Attributes
    ----------
    batch, height, width
        Pictures in a pass that gets gradients, in pixels.
    text
        Tokens of a prompt.
    probed, attended
        Blocks whose attention is looked at, and whether it gets a gradient.
    attacked
        Whether the prompts get gradients, too.
    checkpointing
        Whether activations are recomputed in the backward pass.
    parameters
        Numbers that are trained, in float32.
    adapted
        Bytes of what the eraser's Linears read of the image, kept in float32.
    states
        Bytes of the training states in main memory.
    passes
        Forward passes of a batch that are left, backward ones counted as such.
    checkpoints
        Checkpoints on disk at most.
    """

    batch: int
    height: int
    width: int
    text: int
    probed: int = 0
    attended: bool = False
    attacked: bool = False
    checkpointing: bool = False
    parameters: int = 0
    adapted: int = 0
    states: int = 0
    passes: float = 0.0
    checkpoints: int = 0


class Run(Protocol):
    """A run that can say what it asks of the machine, once its prompts are encoded.

    ``fp8`` says whether its base is in fp8 (None: nobody has asked), ``checkpointing`` whether
    activations are recomputed; :func:`~erase_core.training.memory.fit` sets both. ``notices`` are
    sentences for the person, ``history`` the losses so far.
    """

    model: Model
    fp8: bool | None
    checkpointing: bool
    notices: list[str]
    history: list[Losses]

    @property
    def eraser(self) -> Adapter:
        """The eraser as it is now."""
        ...

    def workload(self) -> Workload:
        """What it asks as it stands."""
        ...

    def sample(self) -> tuple[Conditioning, float | None]:
        """Prompts of one batch, and their guidance."""
        ...

    def encode(self) -> EncodedPrompts:
        """Its prompts, encoded."""
        ...

    def keep(self) -> None:
        """Write a checkpoint of the work so far, unless there is one or none is wanted."""
        ...

    def preview(self) -> Preview:
        """Pictures of the run on its way."""
        ...


@dataclass(frozen=True)
class Estimate:
    """Seconds of the whole run; bytes of memory where the model computes, for states and for
    blocks that are away in RAM, and on disk."""

    seconds: float
    memory: int
    states: int
    away: int
    disk: int

    def __str__(self) -> str:
        what = "states and the model's blocks" if self.away else "states"
        return (
            f"about {_time(self.seconds)}, {_size(self.memory)} of memory for the model and its "
            f"training, {_size(self.states + self.away)} of RAM for {what}, "
            f"{_size(self.disk)} on disk"
        )


def estimate(run: Run, weights: Weights) -> Estimate:
    """Time one forward pass (after a first one that is not counted) and add up the rest.

    The prompts must be encoded and the model loaded.
    """
    load = run.workload()
    trained = 4 * load.parameters
    return Estimate(
        seconds=load.passes * _seconds(run, load),
        memory=peak_bytes(run.model, load, weights),
        states=load.states,
        away=weights.away,
        disk=trained + load.checkpoints * (load.states + 6 * trained),
    )


def peak_bytes(model: Model, load: Workload, weights: Weights) -> int:
    """The most bytes on the device: ``weights``, what is trained with gradients and two optimisers,
    and what a backward pass through the whole model holds."""
    return weights.held + 6 * 4 * load.parameters + _activations(model, load, weights.widened)


def _seconds(run: Run, load: Workload) -> float:
    """Measured seconds of a forward pass of one batch."""
    model, (cond, guidance) = run.model, run.sample()
    shape = (load.batch, *model.family.latents.shape(load.height, load.width))
    x, sigma = torch.zeros(shape, device=model.device), torch.ones((), device=model.device)
    with torch.no_grad():
        for _ in range(2):
            started = time.perf_counter()
            model.velocity(x, sigma, cond.to(model.device), guidance).sum().item()  # waits
    return time.perf_counter() - started


def _activations(model: Model, load: Workload, widened: int) -> int:
    """Bytes that a batch's backward pass holds at its peak, an fp8 matrix of ``widened`` bytes
    included: the most of the moments that can be it."""
    config, kept = model.config, model.family.activations
    doubles, singles = config.depth, config.depth_single_blocks
    queries = model.family.latents.tokens(load.height, load.width)
    tokens = load.text + queries
    row = load.batch * tokens * config.hidden_size * kept_dtype(model.tree).itemsize
    probe = 0
    if load.attended:  # attention of a probed block in float32, a piece of it
        probe = 4 * load.batch * config.num_heads * min(CHUNK, queries) * tokens
    whole = queries <= CHUNK  # in one piece; several are recomputed, one after another
    if load.checkpointing:
        above = kept.above_checkpointed + kept.attacked_checkpointed * load.attacked
        above += kept.second_checkpointed * queries / tokens * bool(_dual(config))
        top = row * (kept.checkpointed * (doubles + singles) + above)
        further = 0.0 if whole else kept.inputs_probed * (load.probed - 1)
        probed = row * (kept.checkpointed * doubles + kept.above_probed + further)
        probed += kept.probes * probe
    else:
        double = kept.double + kept.attacked_double * load.attacked
        single = kept.single + kept.attacked_single * load.attacked
        above = kept.above + kept.above_attacked * load.attacked
        seconds = kept.second * _dual(config) * queries / tokens
        top = row * (double * doubles + seconds + single * singles + above)
        top += probe * load.probed if whole else 0
        top += load.adapted
        before = double * (doubles - 1) + seconds + kept.before_probed
        probed = row * before + kept.probes * probe + load.adapted
    return round(max(top, top - kept.freed * row + widened, probed))


def _dual(config: Sizes) -> int:
    """In how many blocks the image has a second attention that gradients go through: the first
    block's comes before anything that is trained."""
    return len([index for index in getattr(config, "dual", ()) if index])


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
