"""One velocity of a loaded FLUX.2, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EraseError
from ..base import Conditioning
from ..flux1.forward import compute_dtype, places
from ..flux1.parity import share
from .config import AXES_DIM
from .forward import TEXT_AXIS
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
    text = cond.context.shape[1]
    position = places(text, rows, columns, len(AXES_DIM))
    position[:text, TEXT_AXIS] = torch.arange(text)
    position = position.float().to(latents.device)
    with torch.no_grad():
        (out,) = model(
            hidden_states=latents.to(dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=cond.context.to(dtype),
            timestep=sigma.expand(len(latents)).to(dtype),
            img_ids=position[text:],
            txt_ids=position[:text],
            return_dict=False,
        )
    return out.transpose(1, 2).unflatten(-1, (rows, columns)).float()


def _diffusers_model(tree: nn.Module, config: Any) -> Any:
    """diffusers' module tree around views of our weights."""
    try:
        from diffusers import Flux2Transformer2DModel
    except ImportError as error:
        raise EraseError(
            "diffusers is not installed or too old; pip install -U diffusers to compare."
        ) from error
    with torch.device("meta"):
        model: Any = Flux2Transformer2DModel(
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
    return model.eval()
