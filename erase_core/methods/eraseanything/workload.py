"""What a run of Algorithm 1 asks of the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ...models.base import kept_dtype
from ...training.estimate import Workload

if TYPE_CHECKING:
    from .trainer import Trainer

BACKWARD = 1.3  # of a forward pass; the base's weights get no gradient


def workload(trainer: Trainer) -> Workload:
    """Counted from the settings, the prompts and, of a resumed run, the states."""
    settings = trainer.settings
    checkpoints = 0
    if trainer.checkpoint_dir is not None and settings.checkpoint_every:
        checkpoints = min(settings.keep_checkpoints, settings.steps // settings.checkpoint_every)
    return Workload(
        batch=max(1, settings.batch // trainer.team.size),
        height=settings.height,
        width=settings.width,
        text=trainer.encode().length,
        probed=len(trainer.blocks),
        attended=bool(settings.l_attn),
        attacked=bool(settings.l_adv),
        checkpointing=settings.activation_checkpointing,
        parameters=sum(parameter.numel() for parameter in trainer.lora.parameters()),
        adapted=_adapted(trainer),
        states=_state_bytes(trainer),
        passes=_passes(trainer),
        checkpoints=checkpoints,
    )


def _state_bytes(trainer: Trainer) -> int:
    """Bytes of the state buffer, those of a resumed run as they are."""
    if trainer.states is not None:
        parts = trainer.states.tensors().values()
        return sum(tensor.nbytes for part in parts for tensor in part.values())
    settings, plan, model = trainer.settings, trainer.plan, trainer.model
    laid, size = model.family.latents, (settings.height, settings.width)
    latent = 2 * math.prod(laid.shape(*size))
    kept = 4 if kept_dtype(model.tree) == torch.float32 else 2
    heads, queries = model.config.num_heads, laid.tokens(*size)
    contrast = (1 + settings.k) * len(trainer.blocks) * heads * queries * kept
    velocity = latent // 2 * kept
    erase = latent + velocity * (2 if settings.l_esd else 1)
    erase += contrast if settings.l_rsc else 0
    keep = 0 if trainer.pictures is not None else len(plan.keep) * (latent + velocity)
    return settings.rollout_steps * (len(plan.erase) * erase + keep)


def _passes(trainer: Trainer) -> float:
    """Forward passes of a batch that the run has left, backward ones counted as such."""
    settings, config = trainer.settings, trainer.model.config
    probed = (max(trainer.blocks) + 1) / (config.depth + config.depth_single_blocks)
    walks = 1.0 if trainer.sampler.walks_once else 2.0
    if trainer.model.family.negative and trainer.sampler.guidance_rollout != 1:
        walks = 3.0  # the negative prompt's, too
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


def _adapted(trainer: Trainer) -> int:
    """Bytes of the inputs that the LoRA keeps in float32, but for the text stream's, which the
    rows per block count."""
    settings, model = trainer.settings, trainer.model
    image = model.family.latents.tokens(settings.height, settings.width)
    read = {"image.attention": image, "single.attention": trainer.encode().length + image}
    targets = {model.family.aliases.get(target, target) for target in settings.targets}
    numbers = 0
    for role in targets & read.keys():
        slots = {slot.module: slot for slot in model.slots([role]).values()}
        numbers += sum(slot.in_features * read[role] for slot in slots.values())
    return 4 * settings.batch * numbers
