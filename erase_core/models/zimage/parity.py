"""One velocity of a loaded Z-Image, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Conditioning
from ..flux1.forward import compute_dtype
from ..flux1.parity import diffusers_class, share
from ..frozen import FrozenLinear
from .forward import NORM
from .names import linears, to_diffusers

TIME = ("t_embedder.mlp.0", "t_embedder.mlp.2")


def diffusers_velocity(
    tree: nn.Module,
    config: Any,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | None,
) -> Tensor:
    """What :func:`.forward.zimage_forward` is to predict: (B, 16, h, w), h and w even.

    The weights are shared with ``tree``, not copied; fp8 is widened at use. ``guidance`` is not
    looked at.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    dtype = compute_dtype(tree, latents, NORM)
    model = _diffusers_model(tree, config, dtype)
    with torch.no_grad():
        (out,) = model(
            list(latents.to(dtype)[:, :, None]),
            (1 - sigma.float()).expand(len(latents)),
            [row.to(dtype) for row in cond.rows()],
            return_dict=False,
        )
    return -torch.stack(list(out))[:, :, 0].float()


def _diffusers_model(tree: nn.Module, config: Any, dtype: torch.dtype) -> Any:
    """diffusers' module tree around views of our weights."""
    kind = diffusers_class("ZImageTransformer2DModel")
    with torch.device("meta"):
        model: Any = kind(
            in_channels=config.in_channels // 4,
            dim=config.hidden_size,
            n_layers=config.depth,
            n_refiner_layers=config.refiners,
            n_heads=config.num_heads,
            n_kv_heads=config.num_heads,
            cap_feat_dim=config.context_in_dim,
        )
    found = {name: slot.module for name, slot in linears(config).items()}
    share(tree, model, {n: m for n, m in found.items() if n not in TIME})
    state = to_diffusers(tree.state_dict())
    for name in TIME:  # whose input diffusers would narrow to the weight's dtype
        layer = tree.get_submodule(name)
        if isinstance(layer, FrozenLinear):
            state[f"{name}.weight"] = layer.used(
                torch.zeros(0, dtype=dtype, device=layer.weight.device)
            )[0]
    model.load_state_dict(state, assign=True)
    return model.train(False)
