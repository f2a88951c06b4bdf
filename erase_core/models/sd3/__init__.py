"""Stable Diffusion 3.5: blocks with a text and an image stream; CLIP-L, CLIP-G and T5; a negative
prompt, or (large turbo) four steps without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..family import Family, named_as
from ..flux1 import FAMILY as FLUX
from .activations import ACTIVATIONS
from .forward import sd3_forward
from .load import owns, read, sizes
from .names import NAMING, SD3_ROLES, skeleton
from .parity import diffusers_velocity
from .pipeline import read_text, read_vae
from .presets import DISTILLED as FEW_STEPS
from .presets import FEW, GUIDANCE, PRESETS


def _variant(file: Path) -> Family | None:
    return TURBO if named_as(file, "turbo") else None


FAMILY = Family(
    name="sd3",
    label="Stable Diffusion 3.5",
    published=("Stable Diffusion 3.5",),
    version="sd3",
    latents=FLUX.latents,
    size=(1024, 1024),
    trained=(512, 512),
    steps=28,
    guidance=GUIDANCE,
    negative=True,
    blocks=("joint_blocks",),
    roles=SD3_ROLES,
    activations=ACTIVATIONS,
    parts={
        "clip_l": "text_encoder",
        "clip_g": "text_encoder_2",
        "t5": "text_encoder_3",
        "vae": "vae",
    },
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=NAMING.slots,
    forward=sd3_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=read_vae,
    witness=diffusers_velocity,
    variant=_variant,
    aliases={name: role for name, role in FLUX.aliases.items() if role in SD3_ROLES},
    presets=PRESETS,
)
# The large tree, distilled: pictures in four steps, without a second pass.
TURBO = replace(
    FAMILY,
    steps=FEW,
    guidance=1.0,
    presets=FEW_STEPS,
    notice="This Stable Diffusion 3.5 is the Turbo model, distilled to 4 steps; train on the base "
    "model, 3.5 large, and use the eraser on either, for here training may leave grain or grey "
    "pictures.",
)
FAMILIES = (FAMILY,)
