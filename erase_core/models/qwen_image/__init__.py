"""Qwen-Image: blocks with a text and an image stream, modulated by the time; Qwen2.5-VL; a negative
prompt, or (distilled) eight steps without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..family import Family, named_as
from ..flux1 import FAMILY as FLUX
from .activations import ACTIVATIONS
from .forward import entering, qwen_image_forward
from .load import owns, read, sizes
from .names import QWEN_IMAGE_ROLES, linears, skeleton
from .parity import diffusers_velocity
from .pipeline import read_text, read_vae
from .presets import DISTILLED as FEW_STEPS
from .presets import FEW, GUIDANCE, PRESETS


def _variant(file: Path) -> Family | None:
    return DISTILLED if named_as(file, "lightning") or named_as(file, "distill") else None


FAMILY = Family(
    name="qwen_image",
    label="Qwen-Image",
    published=("Qwen-Image",),
    version="qwen_image",
    latents=FLUX.latents,
    size=(1024, 1024),
    trained=(512, 512),
    steps=28,
    guidance=GUIDANCE,
    negative=True,
    blocks=("transformer_blocks",),
    roles=QWEN_IMAGE_ROLES,
    activations=ACTIVATIONS,
    parts={"qwen": "text_encoder", "vae": "vae"},
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=linears,
    forward=qwen_image_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=read_vae,
    witness=diffusers_velocity,
    entering=entering,
    variant=_variant,
    aliases={name: role for name, role in FLUX.aliases.items() if role in QWEN_IMAGE_ROLES},
    presets=PRESETS,
)
# The same tree, distilled: pictures in eight steps, without a second pass.
DISTILLED = replace(
    FAMILY,
    steps=FEW,
    guidance=1.0,
    presets=FEW_STEPS,
    notice="This Qwen-Image is distilled to few steps; train on the base model and use the eraser "
    "on either, for here training may leave grain or grey pictures.",
)
FAMILIES = (FAMILY,)
