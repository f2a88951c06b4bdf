"""MiniFlux: a real, small Flux with encoders and autoencoder, bundled with the package.

It draws 128 px pictures of sixty emoji things in colours, styles, numbers and relations; see
``docs/miniflux.md`` for how good it is and ``tools/miniflux`` for how it is made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerFast

from ...errors import EraseError
from ...files import read_tensors, read_weights, sha256
from ...models.base import Bundle
from ...models.flux1.load import load_flux
from ...models.flux1.text import TextEncoders, load_clip, load_t5
from .vae import TinyVAE

if TYPE_CHECKING:
    from ...concepts.sets import ConceptSet
    from ...methods.eraseanything.settings import TrainSettings
    from .recogniser import Recogniser

FOLDER = Path(__file__).parent
T5_LENGTH = 64
SIZE = (128, 128)
TARGETS = ("add_q_proj", "add_k_proj", "add_v_proj")
# What a relationship wants beyond a thing's settings: it moves all that a picture shows, and that
# takes three times the iterations and states on the way to where all goes, not where it comes from.
RELATION: dict[str, Any] = {
    "lr_low": 1e-3,
    "rollout_prompt": "null",
    "steps": 1200,
    "keep_rollouts": 96,
}
# What withstands an attacker who learns a word for the concept.
ROBUST: dict[str, Any] = {
    "targets": (*TARGETS, "image_attention"),
    "lr_low": 1e-3,
    "l_adv": 1.0,
}


def demo_settings(concepts: ConceptSet | None = None) -> TrainSettings:
    """Training settings that suit MiniFlux and these concepts (a thing without any) in a hurry.

    Values are changed along with queries and keys, so that a relative (the anchor) is drawn in the
    concept's place; queries and keys alone leave little but the ground. Tuned on "tiger", RELATION
    on "left of", several at once on five things.
    """
    from ...methods.eraseanything.settings import TrainSettings

    settings = TrainSettings(
        targets=TARGETS,
        lr_low=5e-4,
        lr_up=1e-3,
        eta=0.0,
        l_attn=0.1,
        null="replace",
        keep_rollouts=64,
        height=SIZE[0],
        width=SIZE[1],
    )
    everything = concepts.concepts if concepts else ()
    if any(concept.kind == "relationship" for concept in everything):
        settings = replace(settings, **RELATION)
    if len(everything) > 1:
        settings = replace(settings, lr_low=1e-3).for_concepts(len(everything))
    return settings


def train_settings(concepts: ConceptSet | None = None) -> TrainSettings:
    """MiniFlux's own settings for these concepts: those that won the benchmark, with adversaries.

    An iteration takes some 1.7 times as long as with :func:`demo_settings`.
    """
    return replace(demo_settings(concepts), **ROBUST)


def load(dtype: torch.dtype = torch.bfloat16, folder: Path = FOLDER) -> Bundle:
    """The bundled model, its transformer and autoencoder in ``dtype``."""
    path = folder / "transformer.safetensors"
    tree, config = load_flux(path, dtype=dtype)
    return Bundle(
        tree=tree,
        config=config,
        text=load_text(folder),
        vae=load_vae(folder / "vae.safetensors", dtype),
        name="miniflux",
        sha256=sha256(path),
        size=SIZE,
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


def load_vae(
    path: Path = FOLDER / "vae.safetensors", dtype: torch.dtype = torch.bfloat16
) -> TinyVAE:
    """A tiny autoencoder's file in ``dtype``; EraseError when it is not one with 16 channels."""
    vae, tensors = TinyVAE(), read_weights(path)
    try:
        vae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise EraseError(
            f"{path} is no tiny autoencoder with 16 channels; choose another."
        ) from error
    return vae.to(dtype).eval().requires_grad_(False)


def load_recogniser(folder: Path = FOLDER) -> Recogniser:
    """The recogniser in float32."""
    from .recogniser import Recogniser  # which itself knows this package's world

    model = Recogniser()
    tensors, _ = read_tensors(folder / "recogniser.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False)
