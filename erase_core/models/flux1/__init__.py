"""FLUX.1: 19 blocks with a text and an image stream, 38 with one; CLIP-L's pooled vector and T5."""

from __future__ import annotations

from ..family import Activations, Family
from ..sampling import Latents
from .forward import flux_forward
from .load import owns, read, sizes
from .names import ALIASES, NAMING, ROLES, skeleton
from .parity import diffusers_velocity
from .pipeline import read_text, read_vae
from .presets import PRESETS

# Counted on the CPU; tests/training/test_memory.py compares. The peak without checkpointing is
# where a single block's attention and MLP are joined; then the MLP's four tensors are freed, and
# the second Linear gives one.
ACTIVATIONS = Activations(
    drawn=22.0,
    double=14.25,
    single=10.85,
    above=10.0,
    checkpointed=1.02,
    above_checkpointed=28.0,
    above_probed=12.4,
    inputs_probed=2.05,
    attacked_double=4.0,
    attacked_single=2.0,
    above_attacked=6.0,
    attacked_checkpointed=4.0,
    freed=3.0,
    probes=3,
)

FAMILY = Family(
    name="flux1",
    label="FLUX.1",
    published=("FLUX.1-dev", "FLUX.1-schnell"),
    version="flux1",
    latents=Latents(channels=16, scale=8, patch=2),
    size=(1024, 1024),
    trained=(512, 512),
    steps=28,
    guidance=3.5,
    blocks=("double_blocks", "single_blocks"),
    roles=ROLES,
    activations=ACTIVATIONS,
    parts={"clip_l": "text_encoder", "t5": "text_encoder_2", "vae": "vae"},
    owns=owns,
    read=read,
    sizes=sizes,
    skeleton=skeleton,
    linears=NAMING.slots,
    forward=flux_forward,
    shift=lambda config: config.shift,
    text=read_text,
    vae=read_vae,
    witness=diffusers_velocity,
    aliases=ALIASES,
    presets=PRESETS,
)
FAMILIES = (FAMILY,)
