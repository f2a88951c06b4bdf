"""Qwen-Image's names: its authors', ComfyUI's and diffusers' are the same."""

from __future__ import annotations

import torch
from torch import nn

from ..base import Slot
from ..flux1.names import ROLES
from .config import QwenImageConfig
from .tree import QwenImage

_LACKS = ("single.attention", "pooled_in")

# As FLUX.1's, without single blocks and a pooled vector.
QWEN_IMAGE_ROLES = {role: name for role, name in ROLES.items() if role not in _LACKS} | {
    "text.mlp_out": r"transformer_blocks\.\d+\.txt_mlp\.net\.2",
    "text_in": "txt_in",
}


def skeleton(config: QwenImageConfig) -> QwenImage:
    """A Qwen-Image tree without storage (meta device), for its names and shapes."""
    with torch.device("meta"):
        return QwenImage(config)


def linears(config: QwenImageConfig) -> dict[str, Slot]:
    """Every Linear by name, with its place in the tree, in file order."""
    return {
        name: Slot(name, slice(0, module.out_features), module.in_features, module.out_features)
        for name, module in skeleton(config).named_modules()
        if isinstance(module, nn.Linear)
    }
