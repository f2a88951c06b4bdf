"""One velocity of a loaded Qwen-Image, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Conditioning
from ..flux1.config import AXES_DIM, HEAD_DIM
from ..flux1.forward import THETA, compute_dtype, patchify, unpatchify
from ..flux1.parity import diffusers_class, share
from .forward import NORM
from .names import linears


def diffusers_velocity(
    tree: nn.Module,
    config: Any,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | None,
) -> Tensor:
    """What :func:`.forward.qwen_image_forward` is to predict: (B, 16, h, w), h and w even.

    The weights are shared with ``tree``, not copied; fp8 is widened at use. ``guidance`` is not
    looked at.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    dtype = compute_dtype(tree, latents, NORM)
    model = diffusers_model(config, "meta")
    share(tree, model, {name: name for name in linears(config)})
    model.load_state_dict(tree.state_dict(), assign=True)
    img, rows, columns = patchify(latents.to(dtype))
    with torch.no_grad():
        (out,) = model.train(False)(
            hidden_states=img,
            encoder_hidden_states=cond.context.to(dtype),
            encoder_hidden_states_mask=cond.mask,
            timestep=sigma.expand(len(img)),
            img_shapes=[[(1, rows, columns)]] * len(img),
            return_dict=False,
        )
    return unpatchify(out, rows, columns).float()


def diffusers_model(config: Any, device: str = "cpu") -> Any:
    """diffusers' own model of these sizes, without storage on "meta"; EraseError when it is not
    installed. Its rotations, which no file has, are always in main memory."""
    with torch.device(device):
        model = diffusers_class("QwenImageTransformer2DModel")(
            in_channels=config.in_channels,
            num_layers=config.depth,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=config.num_heads,
            joint_attention_dim=config.context_in_dim,
        )
    rope = type(model.pos_embed)
    model.pos_embed = rope(theta=THETA, axes_dim=list(AXES_DIM), scale_rope=True)
    return model
