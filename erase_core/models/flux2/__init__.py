"""FLUX.2 klein: Flux's blocks, those of a kind modulated alike; three layers of Qwen3; a negative
prompt, or four steps without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..family import Family
from ..flux1 import FAMILY as FLUX
from ..sampling import Latents
from .activations import ACTIVATIONS
from .autoencoder import Flux2Autoencoder
from .forward import flux2_forward
from .load import owns, read, sizes
from .names import FLUX2_ROLES, NAMING, ROWS, skeleton
from .parity import diffusers_velocity
from .pipeline import distilled, read_text
from .presets import DISTILLED as FEW_STEPS
from .presets import FEW, GUIDANCE, PRESETS


def _variant(file: Path) -> Family | None:
    return DISTILLED if distilled(file) else None


FAMILY = Family(
    name="flux2",
    label="FLUX.2 klein",
    published=("FLUX.2-klein",),
    version="flux2",
    latents=Latents(channels=128, scale=16, patch=1),
    size=(1024, 1024),
    trained=(512, 512),
    steps=28,
    guidance=GUIDANCE,
    negative=True,
    blocks=FLUX.blocks,
    roles=FLUX2_ROLES,
    rows=ROWS,
    activations=ACTIVATIONS,
    parts={"qwen": "text_encoder", "vae": "vae"},
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=NAMING.slots,
    forward=flux2_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=Flux2Autoencoder.load,
    witness=diffusers_velocity,
    variant=_variant,
    aliases={name: role for name, role in FLUX.aliases.items() if role in FLUX2_ROLES},
    presets=PRESETS,
)
# The same tree, distilled: pictures in four steps, without a second pass.
DISTILLED = replace(
    FAMILY,
    steps=FEW,
    guidance=1.0,
    presets=FEW_STEPS,
    notice="This FLUX.2 klein is distilled to 4 steps; train on the base model and use the eraser "
    "on either, for here training may leave grain or grey pictures.",
)
FAMILIES = (FAMILY,)
