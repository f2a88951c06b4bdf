"""MiniFlux: a real, small Flux with encoders and autoencoder, bundled with the package.

It draws 128 px pictures of sixty emoji things in colours, styles, numbers and relations; see
``docs/miniflux.md`` for how good it is and ``tools/miniflux`` for how it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerFast

from ...files import sha256
from ...machine import fast_dtype
from ...models.base import Model
from ...models.files import read_presets
from ...models.flux1 import FAMILY
from ...models.flux1.taesd import load_tiny
from ...models.flux1.text import TextEncoders, load_clip, load_t5
from ...models.load import load as load_tree
from ...tensors import read_tensors

if TYPE_CHECKING:
    from .recogniser import Recogniser

FOLDER = Path(__file__).parent
T5_LENGTH = 64
SIZE = (128, 128)
PRESETS = read_presets(FOLDER / "transformer.safetensors")


def load(dtype: torch.dtype | None = None, folder: Path = FOLDER) -> Model:
    """The bundled model, its transformer and autoencoder in ``dtype`` (what this CPU multiplies
    fast)."""
    dtype = dtype or fast_dtype(torch.device("cpu"))
    path = folder / "transformer.safetensors"
    tree, config = load_tree(FAMILY, path, dtype=dtype)
    return Model(
        family=FAMILY,
        tree=tree,
        config=config,
        text=load_text(folder),
        vae=load_tiny(folder / "vae.safetensors", dtype),
        name="miniflux",
        sha256=sha256(path),
        size=SIZE,
        shift_mu=FAMILY.shift(config),
        presets=read_presets(path) if folder != FOLDER else PRESETS,
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
    return model.train(False).requires_grad_(False)
