"""Flux's two naming schemes: Black Forest Labs' (BFL, ComfyUI) and diffusers'.

BFL fuses projections that diffusers keeps apart: ``double_blocks.N.txt_attn.qkv`` holds the rows of
``transformer_blocks.N.attn.add_q_proj``, ``add_k_proj`` and ``add_v_proj``, in this order. LoRA
files carry diffusers' names, the training forward BFL's; the tables here say who sits where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EraseError
from ..base import Slot
from .config import FluxConfig, count_blocks
from .tree import Flux

Stacked = Mapping[str, tuple[str, ...]]

# BFL module -> the diffusers modules whose rows it stacks. Of several, all but the last have
# `hidden_size` rows.
OUTER: Stacked = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
DOUBLE: Stacked = {
    "img_mod.lin": ("norm1.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE: Stacked = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
    "linear2": ("proj_out",),
}
_NORM = r"(_norm|\.norms\.\d+)"  # of queries and keys, and of Chroma's approximator
_SWAPPED = "final_layer.adaLN_modulation.1"  # BFL stacks (shift, scale), diffusers (scale, shift)

# Role -> the diffusers names of its Linears, as a pattern.
ROLES: dict[str, str] = {
    "text.q": r"transformer_blocks\.\d+\.attn\.add_q_proj",
    "text.k": r"transformer_blocks\.\d+\.attn\.add_k_proj",
    "text.v": r"transformer_blocks\.\d+\.attn\.add_v_proj",
    "text.out": r"transformer_blocks\.\d+\.attn\.to_add_out",
    "text.mlp_out": r"transformer_blocks\.\d+\.ff_context\.net\.2",
    "image.attention": r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)",
    "single.attention": r"single_transformer_blocks\.\d+\.attn\.to_[qkv]",
    "text_in": "context_embedder",
    "pooled_in": r"time_text_embed\.text_embedder\.linear_[12]",
}
# What files, workflows and command lines of the first version call them.
ALIASES = {
    "add_q_proj": "text.q",
    "add_k_proj": "text.k",
    "add_v_proj": "text.v",
    "to_add_out": "text.out",
    "image_attention": "image.attention",
    "single_blocks": "single.attention",
    "vector_in": "pooled_in",
}


def skeleton(config: FluxConfig) -> Flux:
    """A Flux tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return Flux(config)


@dataclass(frozen=True)
class Naming:
    """Which diffusers modules each module of a tree with BFL names stacks: of the whole model, of
    each double block and of each single one; ``tree`` makes that tree without storage.

    ``joint`` is the tree's list of double blocks. Of a tree so deep ``swapped`` names the modules
    whose halves stand the other way round in diffusers.
    """

    outer: Stacked
    double: Stacked
    single: Stacked
    tree: Callable[[Any], nn.Module]
    joint: str = "double_blocks"
    swapped: Callable[[int], tuple[str, ...]] = lambda depth: (_SWAPPED,)

    def slots(self, config: Any) -> dict[str, Slot]:
        """Every Linear of diffusers' model by name, with its place in the BFL tree, in file order.

        All but ``norm_out.linear`` and others whose halves stand the other way round there.
        """
        modules = dict(self.tree(config).named_modules())
        swapped = self.swapped(config.depth)
        slots = {}
        for name, parts in self.stacks(config.depth, config.depth_single_blocks).items():
            module = modules.get(name)
            if isinstance(module, nn.Linear) and name not in swapped:
                sizes = _row_counts(len(parts), config.hidden_size, module.out_features)
                for part, start, size in zip(parts, _starts(sizes), sizes, strict=True):
                    slots[part] = Slot(name, slice(start, start + size), module.in_features, size)
        return slots

    def to_bfl(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename and stack a diffusers state dict into BFL's file keys (norms end in ``.scale``).

        Keys that are no part of the family keep their names, so that a check of the result shows
        them.
        """
        rest = dict(state)
        converted = {}
        blocks = ("transformer_blocks.", "single_transformer_blocks.")
        depth, single = (count_blocks(rest, prefix) for prefix in blocks)
        stacks, halves = self.stacks(depth, single), self.swapped(depth)
        for module, parts in stacks.items():
            for end in ("weight", "bias"):
                names = [f"{part}.{end}" for part in parts]
                if all(name in rest for name in names):
                    tensors = [rest.pop(name) for name in names]
                    joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
                    swapped = _swap(joined) if module in halves else joined
                    converted[_file_key(module, end)] = swapped
        return converted | rest

    def to_diffusers(self, state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
        """Split and rename a BFL state dict (norms ``.scale`` or ``.weight``) into diffusers' keys.

        Tensors are views of the given ones, but for the swapped output modulation. Raises
        EraseError when the state lacks a key of ``config``, except for absent guidance. A tensor of
        the tree itself keeps its name.
        """
        state = tree_keys(state)
        stacks = self.stacks(config.depth, config.depth_single_blocks)
        halves = self.swapped(config.depth)
        converted: dict[str, Tensor] = {}
        for key in self.tree(config).state_dict():
            if key not in state:
                raise EraseError(f"The state dict lacks {key}; give a whole transformer.")
            module, _, end = key.rpartition(".")
            if not module:
                converted[key] = state[key]
                continue
            parts = stacks[module]
            tensor = _swap(state[key]) if module in halves else state[key]
            pieces = tensor.split(_row_counts(len(parts), config.hidden_size, len(tensor)))
            converted |= {f"{part}.{end}": piece for part, piece in zip(parts, pieces, strict=True)}
        return converted

    def stacks(self, depth: int, depth_single: int) -> dict[str, tuple[str, ...]]:
        """BFL module -> diffusers modules, for the whole model."""
        table: dict[str, tuple[str, ...]] = dict(self.outer)
        for bfl, diffusers, blocks, count in (
            (self.joint, "transformer_blocks", self.double, depth),
            ("single_blocks", "single_transformer_blocks", self.single, depth_single),
        ):
            for index in range(count):
                for module, parts in blocks.items():
                    names = tuple(f"{diffusers}.{index}.{part}" for part in parts)
                    table[f"{bfl}.{index}.{module}"] = names
        return table


NAMING = Naming(OUTER, DOUBLE, SINGLE, skeleton)


def tree_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BFL keys as our module tree has them: norms end in ``.weight``."""
    return {re.sub(rf"{_NORM}\.scale$", r"\1.weight", key): t for key, t in state.items()}


def file_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BFL keys as in published files, which every host reads: norms end in ``.scale``."""
    return {re.sub(rf"{_NORM}\.weight$", r"\1.scale", key): t for key, t in state.items()}


def _file_key(module: str, end: str) -> str:
    return f"{module}.scale" if re.search(f"{_NORM}$", module) else f"{module}.{end}"


def _row_counts(parts: int, hidden: int, rows: int) -> list[int]:
    return [hidden] * (parts - 1) + [rows - hidden * (parts - 1)]


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:index]) for index in range(len(sizes))]


def _swap(stacked: Tensor) -> Tensor:
    first, second = stacked.chunk(2)
    return torch.cat([second, first])
