"""Floating-point operations of a Flux, from its sizes (a multiplication and an addition are two).

Matrix products alone are counted, as torch.utils.flop_counter does, to whose count these numbers
are equal but for the LoRA's, which are below a hundredth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.models.flux1.config import FluxConfig


@dataclass(frozen=True)
class Passes:
    """Operations for one picture: of the whole model, and of a pass that stops at the attention
    of the last probed block; ``backward`` to a LoRA on the first block's text queries and keys."""

    forward: float
    backward: float
    probed: float
    probed_backward: float


def passes(config: FluxConfig, image: int, text: int, probed_block: int | None = None) -> Passes:
    """Count passes over ``image`` and ``text`` tokens; ``probed_block`` None is the last double."""
    hidden, tokens = config.hidden_size, image + text
    square = 2.0 * hidden * hidden
    qkv = 3 * square * tokens
    linears = qkv + square * tokens * (1 + 2 * config.mlp_ratio)
    attention = 4.0 * tokens * tokens * hidden  # queries by keys, weights by values
    scores = 2.0 * image * tokens * hidden
    final = 2.0 * hidden * config.in_channels * image
    depth, single = config.depth, config.depth_single_blocks
    last = depth - 1 if probed_block is None else probed_block
    entry = _entry(config, image, text)
    blocks = depth + single
    # Gradients of inputs cost as much as the forward pass, twice as much in attention. Before the
    # first block's attention nothing wants one.
    return Passes(
        forward=entry
        + blocks * (linears + attention)
        + square * (12 * depth + 3 * single + 2)
        + final,
        backward=blocks * (linears + 2 * attention) - qkv + final,
        probed=entry + last * (linears + attention) + qkv + scores + square * 12 * (last + 1),
        probed_backward=last * (linears + 2 * attention) + 2 * scores,
    )


def _entry(config: FluxConfig, image: int, text: int) -> float:
    """Operations of the embeddings."""
    inputs = config.in_channels * image + config.context_in_dim * text + config.vec_in_dim
    embedders = 3 if config.guidance_embed else 2
    sinusoids = 256 * (embedders - 1)
    return 2.0 * config.hidden_size * (inputs + sinusoids + embedders * config.hidden_size)


def ours(config: FluxConfig, settings: TrainSettings, text: int) -> float:
    """An iteration of ours: both levels, from kept states; rollouts are counted apart."""
    one = passes(config, _image(settings), text)
    whole, probed = one.forward + one.backward, one.probed + one.probed_backward
    if settings.activation_checkpointing:
        whole, probed = whole + one.forward, probed + one.probed
    graphs = whole * (bool(settings.l_esd) + bool(settings.l_lora)) + probed * bool(settings.l_rsc)
    if settings.l_adv:  # one pass forward; back for the adversaries, then for the LoRA
        graphs += 2 * whole - one.forward
    return settings.batch * graphs


def rollouts(config: FluxConfig, settings: TrainSettings, text: int) -> float:
    """Filling the buffer once, before the first iteration (one guidance for walk and teacher)."""
    one = passes(config, _image(settings), text)
    erase = one.forward * (1 + bool(settings.l_esd))
    erase += one.probed * (1 + settings.k) * bool(settings.l_rsc)
    states = settings.erase_rollouts * erase + settings.keep_rollouts * one.forward
    return settings.rollout_steps * states


def released(config: FluxConfig, settings: TrainSettings, text: int, steps: int) -> float:
    """An iteration of the released schedule: a rollout of ``steps`` for the erase step and K + 1
    for the preserve step, the teacher's two passes, and the same graphs as ours."""
    forward = passes(config, _image(settings), text).forward
    walks = (steps * (2 + settings.k) + 2) * forward
    return settings.batch * walks + ours(config, replace(settings, l_adv=0.0), text)


def _image(settings: TrainSettings) -> int:
    return (settings.height // 16) * (settings.width // 16)
