"""Z-Image: blocks that read text and image as one stream, behind refiners of each; Qwen3; a
negative prompt, or (Turbo) eight steps without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..family import Family, named_as
from ..flux1 import FAMILY as FLUX
from .activations import ACTIVATIONS
from .forward import entering, zimage_forward
from .load import owns, read, sizes
from .names import ZIMAGE_ROLES, linears, skeleton
from .parity import diffusers_velocity
from .pipeline import read_text
from .presets import DISTILLED as FEW_STEPS
from .presets import FEW, GUIDANCE, PRESETS


def _variant(file: Path) -> Family | None:
    return TURBO if named_as(file, "turbo") else None


FAMILY = Family(
    name="zimage",
    label="Z-Image",
    published=("Z-Image",),
    version="zimage",
    latents=FLUX.latents,
    size=(1024, 1024),
    trained=(512, 512),
    steps=28,
    guidance=GUIDANCE,
    negative=True,
    blocks=("noise_refiner", "context_refiner", "layers"),
    roles=ZIMAGE_ROLES,
    activations=ACTIVATIONS,
    parts={"qwen": "text_encoder", "vae": "vae"},
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=linears,
    forward=zimage_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=FLUX.vae,
    witness=diffusers_velocity,
    entering=entering,
    variant=_variant,
    aliases={name: role for name, role in FLUX.aliases.items() if role in ZIMAGE_ROLES},
    presets=PRESETS,
)
# The same tree, distilled: pictures in eight steps, without a second pass.
TURBO = replace(
    FAMILY,
    steps=FEW,
    guidance=1.0,
    presets=FEW_STEPS,
    notice="This Z-Image is the Turbo model, distilled to 8 steps; train on the base model and use "
    "the eraser on either, for here training may leave grain or grey pictures.",
)
FAMILIES = (FAMILY,)
