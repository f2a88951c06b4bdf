"""What a run will take, told before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from ..methods.eraseanything.settings import TrainSettings
from ..methods.eraseanything.trainer import Trainer
from ..models.flux1.names import lora_slots
from ..models.offload import Weights
from .states import kept_dtype

BACKWARD = 1.3  # of a forward pass; the base's weights get no gradient
# Tensors as wide as the model for each token. Autograd keeps so many of a block of either kind;
# with checkpointing one, its input. The peak has so many more: gradients, the block that is being
# recomputed (the last single one, or the double one whose attention is probed). Counted on the CPU;
# tests/test_memory.py compares.
KEPT_DOUBLE, KEPT_SINGLE, ABOVE = 14.25, 10.85, 10.0
CHECKPOINTED, ABOVE_CHECKPOINTED, ABOVE_PROBED = 1.02, 28.0, 12.4
INPUTS_PROBED = 2.05  # q and k of every further probed block, where its pieces are recomputed
# Adversaries change the vector that modulates every block, so that all which it scales is kept too.
ATTACKED_DOUBLE, ATTACKED_SINGLE, ABOVE_ATTACKED, ATTACKED_CHECKPOINTED = 4.0, 2.0, 6.0, 4.0
# So many fewer while an fp8 matrix is widened: the peak lies where a single block's attention and
# MLP are joined; then the MLP's four are freed, and the second Linear gives one.
FREED = 3.0
PROBES = 3  # of the probed block's attention, in float32: saved, its gradient, that of the logits
PROBE_CHUNK = 1024  # image queries whose attention is computed at once


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


def estimate(trainer: Trainer, weights: Weights) -> Estimate:
    """Time one forward pass (after a first one that is not counted) and add up the rest.

    The prompts must be encoded and the model loaded.
    """
    states = state_bytes(trainer)
    lora = 4 * sum(parameter.numel() for parameter in trainer.lora.parameters())
    settings = trainer.settings
    checkpoints = 0
    if trainer.checkpoint_dir is not None and settings.checkpoint_every:
        checkpoints = min(settings.keep_checkpoints, settings.steps // settings.checkpoint_every)
    return Estimate(
        seconds=_passes(trainer) * _seconds(trainer),
        memory=peak_bytes(trainer, weights, settings),
        states=states,
        away=weights.away,
        disk=lora + checkpoints * (states + 6 * lora),
    )


def peak_bytes(trainer: Trainer, weights: Weights, settings: TrainSettings) -> int:
    """The most bytes on the device: ``weights``, the LoRA with gradients and two optimisers, and
    what a backward pass through the whole model holds. The prompts must be encoded."""
    lora = 4 * sum(parameter.numel() for parameter in trainer.lora.parameters())
    return weights.held + 6 * lora + _activations(trainer, settings, weights.widened)


def state_bytes(trainer: Trainer) -> int:
    """Bytes of the state buffer, those of a resumed run as they are."""
    if trainer.states is not None:
        parts = trainer.states.tensors().values()
        return sum(tensor.nbytes for part in parts for tensor in part.values())
    settings, plan = trainer.settings, trainer.plan
    latent = 16 * (settings.height // 8) * (settings.width // 8) * 2
    kept = 4 if kept_dtype(trainer.tree) == torch.float32 else 2
    queries = (settings.height // 16) * (settings.width // 16)
    contrast = (1 + settings.k) * len(trainer.blocks) * trainer.config.num_heads * queries * kept
    velocity = latent // 2 * kept
    erase = latent + velocity * (2 if settings.l_esd else 1)
    erase += contrast if settings.l_rsc else 0
    keep = 0 if trainer.pictures is not None else len(plan.keep) * (latent + velocity)
    return settings.rollout_steps * (len(plan.erase) * erase + keep)


def _passes(trainer: Trainer) -> float:
    """Forward passes of a batch that the run has left, backward ones counted as such."""
    settings, config = trainer.settings, trainer.config
    probed = (max(trainer.blocks) + 1) / (config.depth + config.depth_single_blocks)
    walks = 1.0 if settings.guidance_rollout == settings.guidance_train else 2.0
    contrast = (1 + settings.k) * probed if settings.l_rsc else 0.0
    rollouts = 0.0
    if trainer.states is None:
        own = walks + (1 if settings.l_esd else 0) + contrast
        keep = 0 if trainer.pictures is not None else len(trainer.plan.keep) * walks
        rollouts = (len(trainer.plan.erase) * own + keep) / settings.batch * settings.rollout_steps
    step = 1 + BACKWARD + (1 if settings.activation_checkpointing else 0)
    graphs = (1 if settings.l_esd else probed) + (1 if settings.l_lora else 0)
    graphs += probed if settings.l_rsc else 0
    attacked = step + step - 1 if settings.l_adv else 0.0  # one pass forward, two back
    return rollouts + (settings.steps - trainer.step) * (graphs * step + attacked)


def _seconds(trainer: Trainer) -> float:
    """Measured seconds of a forward pass of one batch."""
    settings = trainer.settings
    rows = torch.arange(settings.batch) % len(trainer.plan.erase)
    cond = trainer.encode().erase(rows).cond.to(trainer.device)
    shape = (settings.batch, 16, settings.height // 8, settings.width // 8)
    x, sigma = torch.zeros(shape, device=trainer.device), torch.ones((), device=trainer.device)
    for _ in range(2):
        started = time.perf_counter()
        trainer.sampler.velocity(x, sigma, cond, trainer.guidance).sum().item()  # waits for a GPU
    return time.perf_counter() - started


def _tokens(trainer: Trainer) -> int:
    settings = trainer.settings
    return trainer.encode().length + settings.height * settings.width // 256


def _activations(trainer: Trainer, settings: TrainSettings, widened: int) -> int:
    """Bytes that a batch's backward pass holds at its peak, an fp8 matrix of ``widened`` bytes
    included: the most of the moments that can be it."""
    config, tokens = trainer.config, _tokens(trainer)
    doubles, singles = config.depth, config.depth_single_blocks
    row = settings.batch * tokens * config.hidden_size * kept_dtype(trainer.tree).itemsize
    attacked = bool(settings.l_adv)
    probe, queries = 0, settings.height * settings.width // 256
    if settings.l_attn:  # attention of a probed block in float32, a piece of it
        pieced = min(PROBE_CHUNK, queries)
        probe = 4 * settings.batch * config.num_heads * pieced * tokens
    whole = queries <= PROBE_CHUNK  # in one piece; several are recomputed, one after the other
    if settings.activation_checkpointing:
        above = ABOVE_CHECKPOINTED + ATTACKED_CHECKPOINTED * attacked
        top = row * (CHECKPOINTED * (doubles + singles) + above)
        further = 0.0 if whole else INPUTS_PROBED * (len(trainer.blocks) - 1)
        probed = row * (CHECKPOINTED * doubles + ABOVE_PROBED + further) + PROBES * probe
    else:
        double = KEPT_DOUBLE + ATTACKED_DOUBLE * attacked
        single = KEPT_SINGLE + ATTACKED_SINGLE * attacked
        above = ABOVE + ABOVE_ATTACKED * attacked
        top = row * (double * doubles + single * singles + above)
        top += probe * len(trainer.blocks) if whole else 0
        top += _adapted(trainer, settings, tokens)
        probed = 0.0
    return round(max(top, top - FREED * row + widened, probed))


def _adapted(trainer: Trainer, settings: TrainSettings, tokens: int) -> int:
    """Bytes of the inputs that the LoRA keeps in float32, but for the text stream's, which the
    rows per block count."""
    slots = {slot.module: slot for slot in lora_slots(trainer.config, settings.targets).values()}
    image = settings.height * settings.width // 256
    kept = {"img_attn": image, "linear1": tokens}
    numbers = sum(
        slot.in_features * count
        for module, slot in slots.items()
        for part, count in kept.items()
        if part in module
    )
    return 4 * settings.batch * numbers


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
