"""One velocity of a loaded Chroma, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Conditioning
from ..flux1.forward import patchify, unpatchify
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
    """What :func:`.forward.chroma_forward` is to predict: (B, 16, h, w), h and w even.

    The weights are shared with ``tree``, not copied; fp8 is widened at use. ``guidance`` is not
    looked at.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    model = _diffusers_model(tree, config)
    dtype = tree.get_parameter("final_layer.linear.bias").dtype
    img, rows, columns = patchify(latents.to(dtype))
    mask = cond.mask
    if mask is not None:  # of booleans: diffusers' own pipeline gives numbers, which it then adds
        mask = torch.cat([mask, mask.new_ones(img.shape[:2])], dim=1)
    with torch.no_grad():
        (out,) = model(
            hidden_states=img,
            encoder_hidden_states=cond.context.to(dtype),
            timestep=sigma.expand(len(img)).to(dtype),
            img_ids=image_places(rows, columns, img.device),
            txt_ids=torch.zeros(cond.context.shape[1], 3, device=img.device),
            attention_mask=mask,
            return_dict=False,
        )
    return unpatchify(out, rows, columns).float()


def _diffusers_model(tree: nn.Module, config: Any) -> Any:
    """diffusers' module tree around views of our weights."""
    kind = diffusers_class("ChromaTransformer2DModel")
    with torch.device("meta"):
        model: Any = kind(
            in_channels=config.in_channels,
            num_layers=config.depth,
            num_single_layers=config.depth_single_blocks,
            num_attention_heads=config.num_heads,
            joint_attention_dim=config.context_in_dim,
            approximator_hidden_dim=config.approximator_width,
            approximator_layers=config.approximator_layers,
        )
    share(tree, model, {name: slot.module for name, slot in NAMING.slots(config).items()})
    model.load_state_dict(NAMING.to_diffusers(tree.state_dict(), config), assign=True)
    # made of numbers alone, and so of none on the meta device
    embedding = model.time_text_embed
    rows, numbers = embedding.mod_proj.shape
    embedding.mod_proj = type(embedding)(numbers // 2, rows).mod_proj
    return model.train(False)
