"""MiniFlux: a real, small Flux with encoders and autoencoder, bundled with the package.

It draws 128 px pictures of sixty emoji things in colours, styles, numbers and relations; see
``docs/miniflux.md`` for how good it is and ``tools/miniflux`` for how it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerFast

from ...files import sha256
from ...machine import fast_dtype
from ...models.base import Model
from ...models.flux1 import FAMILY
from ...models.flux1.load import load_flux
from ...models.flux1.taesd import load_tiny
from ...models.flux1.text import TextEncoders, load_clip, load_t5
from ...tensors import read_tensors

if TYPE_CHECKING:
    from .recogniser import Recogniser

FOLDER = Path(__file__).parent
T5_LENGTH = 64
SIZE = (128, 128)
_BALANCED: dict[str, Any] = {
    "targets": ["add_q_proj", "add_k_proj", "add_v_proj"],
    "lr_low": 5e-4,
    "lr_up": 1e-3,
    "eta": 0.0,
    "l_attn": 0.1,
    "null": "replace",
    "keep_rollouts": 64,
}
# What withstands an attacker who learns a word for the concept.
_ROBUST: dict[str, Any] = _BALANCED | {
    "targets": ["add_q_proj", "add_k_proj", "add_v_proj", "image_attention"],
    "lr_low": 1e-3,
    "l_adv": 1.0,
}
# A relationship moves all that a picture shows, which takes three times the iterations, and states
# on the way to where all goes, not where it comes from.
_RELATION: dict[str, Any] = {
    "lr_low": 1e-3,
    "rollout_prompt": "null",
    "steps": 1200,
    "keep_rollouts": 96,
}
_SEVERAL = {"lr_low": 1e-3}
# Values are changed along with queries and keys, so that a relative (the anchor) is drawn in the
# concept's place; queries and keys alone leave little but the ground. Tuned on "tiger", relations
# on "left of", several at once on five things.
PRESETS: dict[str, Any] = {
    "eraseanything": {
        "fast": {
            "measured": "",
            "all": _BALANCED | {"steps": 100},
            "relationship": _RELATION | {"steps": 300},
            "several": _SEVERAL,
        },
        "balanced": {
            "measured": "MiniFlux: ten things, the demo's settings (docs/erasing.md)",
            "all": _BALANCED,
            "relationship": _RELATION,
            "several": _SEVERAL,
        },
        "robust": {
            "measured": "MiniFlux: the benchmark's concepts of all kinds (docs/RESULTS.md)",
            "all": _ROBUST,
            "relationship": _RELATION,
            "several": _SEVERAL,
        },
        "paper": {"measured": "", "all": {"steps": 1000, "l_attn": 5.0, "l_lora": 0.1}},
    }
}


def load(dtype: torch.dtype | None = None, folder: Path = FOLDER) -> Model:
    """The bundled model, its transformer and autoencoder in ``dtype`` (what this CPU multiplies
    fast)."""
    dtype = dtype or fast_dtype(torch.device("cpu"))
    path = folder / "transformer.safetensors"
    tree, config = load_flux(path, dtype=dtype)
    return Model(
        family=FAMILY,
        tree=tree,
        config=config,
        text=load_text(folder),
        vae=load_tiny(folder / "vae.safetensors", dtype),
        name="miniflux",
        sha256=sha256(path),
        size=SIZE,
        presets=PRESETS,
        file=path,
    )


def load_text(folder: Path = FOLDER) -> TextEncoders:
    """The text encoders with their tokenizers."""
    clip = PreTrainedTokenizerFast.from_pretrained(folder / "clip_l_tokenizer")
    t5 = PreTrainedTokenizerFast.from_pretrained(folder / "t5xxl_tokenizer")
    return TextEncoders(
        clip=load_clip(folder / "clip_l.safetensors", clip),
        clip_tokenizer=clip,
        t5=load_t5(folder / "t5xxl.safetensors"),
        t5_tokenizer=t5,
        t5_length=T5_LENGTH,
    )


def load_recogniser(folder: Path = FOLDER) -> Recogniser:
    """The recogniser in float32."""
    from .recogniser import Recogniser  # which itself knows this package's world

    model = Recogniser()
    tensors, _ = read_tensors(folder / "recogniser.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False)
