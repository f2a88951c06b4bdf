"""One velocity of a loaded FLUX.2, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Conditioning
from ..flux1.forward import compute_dtype
from ..flux1.parity import diffusers_class, image_places, share
from .names import NAMING


def diffusers_velocity(
    tree: nn.Module,
    config: Any,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | None,
) -> Tensor:
    """What :func:`.forward.flux2_forward` is to predict: (B, 128, h, w).

    The weights are shared with ``tree``, not copied; fp8 is widened at use. ``guidance`` is not
    looked at.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    model = _diffusers_model(tree, config)
    dtype = compute_dtype(tree, latents)
    rows, columns = latents.shape[2:]
    order = torch.arange(cond.context.shape[1], device=latents.device)
    with torch.no_grad():
        (out,) = model(
            hidden_states=latents.to(dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=cond.context.to(dtype),
            timestep=sigma.expand(len(latents)).to(dtype),
            img_ids=F.pad(image_places(rows, columns, latents.device), (0, 1)),
            txt_ids=F.pad(order[:, None].float(), (3, 0)),
            return_dict=False,
        )
    return out.transpose(1, 2).unflatten(-1, (rows, columns)).float()


def _diffusers_model(tree: nn.Module, config: Any) -> Any:
    """diffusers' module tree around views of our weights."""
    kind = diffusers_class("Flux2Transformer2DModel")
    with torch.device("meta"):
        model: Any = kind(
            in_channels=config.in_channels,
            num_layers=config.depth,
            num_single_layers=config.depth_single_blocks,
            num_attention_heads=config.num_heads,
            joint_attention_dim=config.context_in_dim,
            mlp_ratio=config.mlp_ratio,
            guidance_embeds=config.guidance_embed,
        )
    modules = {name: slot.module for name, slot in NAMING.slots(config).items()}
    share(tree, model, modules | {"norm_out.linear": "final_layer.adaLN_modulation.1"})
    model.load_state_dict(NAMING.to_diffusers(tree.state_dict(), config), assign=True)
    return model.train(False)
