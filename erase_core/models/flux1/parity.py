"""One velocity of a loaded Flux, computed by diffusers' model from the very same weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EraseError
from ..base import Conditioning
from ..frozen import FrozenLinear, like, put
from .forward import patchify, unpatchify
from .names import NAMING


def diffusers_velocity(
    tree: nn.Module,
    config: Any,
    latents: Tensor,
    sigma: Tensor,
    cond: Conditioning,
    guidance: float | None,
) -> Tensor:
    """What :func:`.forward.velocity` is to predict: (B, 16, h, w), h and w even.

    The weights are shared with ``tree``, not copied; fp8 is widened at use.

    Raises
    ------
    EraseError
        When diffusers is not installed.
    """
    assert cond.pooled is not None
    model = _diffusers_model(tree, config)
    dtype = tree.get_parameter("final_layer.linear.bias").dtype
    img, rows, columns = patchify(latents.to(dtype))
    guided = None
    if config.guidance_embed:
        guided = torch.full((len(img),), guidance or 0.0, dtype=dtype, device=img.device)
    with torch.no_grad():
        (out,) = model(
            hidden_states=img,
            encoder_hidden_states=cond.context.to(dtype),
            pooled_projections=cond.pooled.to(dtype),
            timestep=sigma.expand(len(img)).to(dtype),
            img_ids=image_places(rows, columns, img.device),
            txt_ids=torch.zeros(cond.context.shape[1], 3, device=img.device),
            guidance=guided,
            return_dict=False,
        )
    return unpatchify(out, rows, columns).float()


def _diffusers_model(tree: nn.Module, config: Any) -> Any:
    """diffusers' module tree around views of our weights."""
    kind = diffusers_class("FluxTransformer2DModel")
    with torch.device("meta"):
        model: Any = kind(
            in_channels=config.in_channels,
            num_layers=config.depth,
            num_single_layers=config.depth_single_blocks,
            num_attention_heads=config.num_heads,
            joint_attention_dim=config.context_in_dim,
            pooled_projection_dim=config.vec_in_dim,
            guidance_embeds=config.guidance_embed,
        )
    modules = {name: slot.module for name, slot in NAMING.slots(config).items()}
    share(tree, model, modules | {"norm_out.linear": "final_layer.adaLN_modulation.1"})
    model.load_state_dict(NAMING.to_diffusers(tree.state_dict(), config), assign=True)
    return model.train(False)


def diffusers_class(name: str) -> Any:
    """A class of diffusers'; EraseError when it is not installed, or knows no such class yet."""
    try:
        return getattr(import_module("diffusers"), name)
    except (ImportError, AttributeError) as error:
        raise EraseError(
            "diffusers is not installed or too old; pip install -U diffusers to compare."
        ) from error


def image_places(rows: int, columns: int, device: torch.device) -> Tensor:
    """The places of image tokens as diffusers wants them, (rows * columns, 3)."""
    place = torch.zeros(rows, columns, 3, device=device)
    place[..., 1] = torch.arange(rows, device=device)[:, None]
    place[..., 2] = torch.arange(columns, device=device)
    return place.flatten(0, 1)


def share(tree: nn.Module, model: nn.Module, modules: Mapping[str, str]) -> None:
    """Put a FrozenLinear into diffusers' ``model`` wherever our ``tree`` has one; ``modules``:
    diffusers' name -> ours."""
    for name, module in modules.items():
        ours = tree.get_submodule(module)
        if isinstance(ours, FrozenLinear):
            theirs: Any = model.get_submodule(name)
            cast = like(theirs)
            cast.scale = ours.scale
            put(model, name, cast)
