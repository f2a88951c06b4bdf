"""One velocity of a loaded Stable Diffusion 3, computed by diffusers' model from the very same
weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Conditioning
from ..flux1.forward import compute_dtype
from ..flux1.parity import diffusers_class, share
from .config import HEAD
from .forward import NORM
from .names import NAMING, swapped, to_diffusers


def diffusers_velocity(
    tree: nn.Module,
    config: Any,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | None,
) -> Tensor:
    """What :func:`.forward.sd3_forward` is to predict: (B, 16, h, w), h and w even.

    The weights are shared with ``tree``, not copied; fp8 is widened at use. ``guidance`` is not
    looked at.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    assert cond.pooled is not None
    dtype = compute_dtype(tree, latents, NORM)
    with torch.device("meta"):
        model = diffusers_model(config)
    modules = {name: slot.module for name, slot in NAMING.slots(config).items()}
    share(tree, model, modules | swapped(config.depth))
    model.load_state_dict(to_diffusers(tree.state_dict(), config), assign=True)
    with torch.no_grad():
        (out,) = model.train(False)(
            hidden_states=latents.to(dtype),
            encoder_hidden_states=cond.context.to(dtype),
            pooled_projections=cond.pooled.to(dtype),
            timestep=1000 * sigma.float().expand(len(latents)),
            return_dict=False,
        )
    return out.float()


def diffusers_model(config: Any) -> Any:
    """diffusers' own model of these sizes; EraseError when it is not installed."""
    return diffusers_class("SD3Transformer2DModel")(
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        num_layers=config.depth,
        attention_head_dim=HEAD,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        caption_projection_dim=config.hidden_size,
        pooled_projection_dim=config.vec_in_dim,
        pos_embed_max_size=config.positions,
        dual_attention_layers=config.dual,
        qk_norm="rms_norm" if config.qk_norm else None,
    )
