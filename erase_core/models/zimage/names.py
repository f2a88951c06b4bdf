"""Z-Image's names: its authors' (ComfyUI's) and diffusers'.

``attention.qkv`` holds the rows of diffusers' ``to_q``, ``to_k`` and ``to_v``, in this order. LoRA
files carry diffusers' names, the training forward the authors'.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..base import Slot
from .config import ZImageConfig
from .tree import ZImage

_OURS_THEIRS = (
    ("x_embedder", "all_x_embedder.2-1"),
    ("final_layer", "all_final_layer.2-1"),
    ("attention.out", "attention.to_out.0"),
    ("attention.q_norm", "attention.norm_q"),
    ("attention.k_norm", "attention.norm_k"),
)
_FUSED = "attention.qkv"
_PARTS = ("attention.to_q", "attention.to_k", "attention.to_v")

# Role -> the diffusers names of its Linears, as a pattern. The text's own are those of the refiner
# that reads nothing else; what reads text and image together is "single".
ZIMAGE_ROLES: dict[str, str] = {
    "text.q": r"context_refiner\.\d+\.attention\.to_q",
    "text.k": r"context_refiner\.\d+\.attention\.to_k",
    "text.v": r"context_refiner\.\d+\.attention\.to_v",
    "text.out": r"context_refiner\.\d+\.attention\.to_out\.0",
    "text.mlp_in": r"context_refiner\.\d+\.feed_forward\.w[13]",
    "text.mlp_out": r"context_refiner\.\d+\.feed_forward\.w2",
    "image.attention": r"noise_refiner\.\d+\.attention\.to_(q|k|v|out\.0)",
    "single.attention": r"layers\.\d+\.attention\.to_[qkv]",
    "text_in": r"cap_embedder\.1",
}


def skeleton(config: ZImageConfig) -> ZImage:
    """A Z-Image tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return ZImage(config)


def linears(config: ZImageConfig) -> dict[str, Slot]:
    """Every Linear of diffusers' model by name, with its place in our tree, in file order."""
    slots = {}
    for name, module in skeleton(config).named_modules():
        if not isinstance(module, nn.Linear):
            continue
        width, rows = module.in_features, module.out_features
        parts = _apart(name)
        size = rows // len(parts)
        for index, part in enumerate(parts):
            slots[part] = Slot(name, slice(index * size, (index + 1) * size), width, size)
    return slots


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under diffusers' names; tensors are views of the given ones."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, end = name.rpartition(".")
        names = [f"{part}.{end}" for part in _apart(module)] if module else [name]
        found |= dict(zip(names, tensor.chunk(len(names)), strict=True))
    return found


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' state dict under our names. Keys that are no part of the family keep theirs, so
    that a check of the result shows them."""
    rest, found, first = dict(state), {}, _PARTS[0]
    for name in state:
        names = [name.replace(first, part) for part in _PARTS]
        if first in name and all(part in rest for part in names):
            found[name.replace(first, _FUSED)] = torch.cat([rest.pop(part) for part in names])
    for name, tensor in rest.items():
        found[_ours(name)] = tensor
    return found


def _apart(module: str) -> list[str]:
    """What diffusers calls a module of ours, or the three that it stacks."""
    if module.endswith(_FUSED):
        return [module.replace(_FUSED, part) for part in _PARTS]
    for ours, theirs in _OURS_THEIRS:
        module = module.replace(ours, theirs)
    return [module]


def _ours(name: str) -> str:
    for ours, theirs in _OURS_THEIRS:
        name = name.replace(theirs, ours)
    return name
