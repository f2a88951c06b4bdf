"""Stable Diffusion 3's names: its authors' (ComfyUI's) and diffusers'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..flux1.names import ROLES, Naming
from .config import SD3Config
from .tree import SD3

PLACES = ("pos_embed", "pos_embed.pos_embed")  # of the image's tokens: ours, theirs
_TIME = "time_text_embed"
_OUTER = {
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
    **{
        f"{ours}.mlp.{place}": (f"{_TIME}.{theirs}.linear_{number}",)
        for ours, theirs in (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder"))
        for place, number in ((0, 1), (2, 2))
    },
}


def _attention(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    """An attention of the image's stream."""
    return {
        f"{ours}.qkv": tuple(f"{theirs}.to_{part}" for part in "qkv"),
        f"{ours}.ln_q": (f"{theirs}.norm_q",),
        f"{ours}.ln_k": (f"{theirs}.norm_k",),
        f"{ours}.proj": (f"{theirs}.to_out.0",),
    }


_BLOCK = {
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    **_attention("x_block.attn", "attn"),
    **_attention("x_block.attn2", "attn2"),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
    "context_block.attn.qkv": tuple(f"attn.add_{part}_proj" for part in "qkv"),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
}


def skeleton(config: SD3Config) -> SD3:
    """A Stable Diffusion 3 tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return SD3(config)


def swapped(depth: int) -> dict[str, str]:
    """Modulations whose halves stand the other way round in diffusers, the last ones of either
    stream: its name -> ours."""
    last = depth - 1
    return {
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        f"transformer_blocks.{last}.norm1_context.linear": (
            f"joint_blocks.{last}.context_block.adaLN_modulation.1"
        ),
    }


def _halves(depth: int) -> tuple[str, ...]:
    return tuple(swapped(depth).values())


NAMING = Naming(_OUTER, _BLOCK, {}, skeleton, joint="joint_blocks", swapped=_halves)

# As FLUX.1's; the image's attentions are both where it has two.
SD3_ROLES = {role: pattern for role, pattern in ROLES.items() if role != "single.attention"} | {
    "image.attention": r"transformer_blocks\.\d+\.attn2?\.to_(q|k|v|out\.0)",
}


def to_diffusers(state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Our state dict under diffusers' names; tensors are views of the given ones but for those
    whose halves stand the other way round."""
    found = NAMING.to_diffusers(state, config)
    return found | {PLACES[1]: found.pop(PLACES[0])}


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' state dict under our names. Keys that are no part of the family keep theirs, so
    that a check of the result shows them."""
    found = NAMING.to_bfl(state)
    if PLACES[1] in found:
        found[PLACES[0]] = found.pop(PLACES[1])
    return found
