"""Chroma: Flux's blocks, 19 with a text and an image stream and 38 with one, all modulated by one
small network; T5 alone; a negative prompt."""

from __future__ import annotations

from dataclasses import replace

from ..family import Family
from ..flux1 import ACTIVATIONS as FLUX1
from ..flux1 import FAMILY as FLUX
from .forward import chroma_forward
from .load import owns, read, sizes
from .names import CHROMA_ROLES, NAMING, skeleton
from .parity import diffusers_velocity
from .pipeline import read_text
from .presets import GUIDANCE, PRESETS

# Counted; tests/training/test_chroma_memory.py compares. The blocks are Flux's. What modulates them
# does not hang on the prompt, so that an attack on it keeps no more; its 344 rows are there while
# a picture is drawn.
ACTIVATIONS = replace(
    FLUX1,
    drawn=22.1,
    attacked_double=0.0,
    attacked_single=0.0,
    above_attacked=0.0,
    attacked_checkpointed=0.0,
)

FAMILY = Family(
    name="chroma",
    label="Chroma",
    published=("Chroma1-HD", "Chroma1-Base"),
    version="chroma",
    latents=FLUX.latents,
    size=(1024, 1024),
    trained=(512, 512),
    steps=30,
    guidance=GUIDANCE,
    negative=True,
    blocks=FLUX.blocks,
    roles=CHROMA_ROLES,
    activations=ACTIVATIONS,
    parts={"t5": "text_encoder", "vae": "vae"},
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=NAMING.slots,
    forward=chroma_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=FLUX.vae,
    witness=diffusers_velocity,
    aliases={name: role for name, role in FLUX.aliases.items() if role in CHROMA_ROLES},
    presets=PRESETS,
)
FAMILIES = (FAMILY,)
