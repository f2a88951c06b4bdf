"""What Stable Diffusion 3 has beside its transformer: CLIP-L, CLIP-G, T5, and an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..base import VAE
from ..flux1 import pipeline
from ..flux1.autoencoder import Autoencoder
from ..flux1.pipeline import CLIP, check_tokenizer, check_width, find_tokenizer, named
from ..flux1.text import load_clip, load_t5
from .config import SD3Config
from .text import ThreeEncoders, load_clip_g

if TYPE_CHECKING:
    from ..files import Files

# In a folder of Stable Diffusion 3's "tokenizer_2" is CLIP-G's.
T5 = pipeline.T5._replace(local=("tokenizer_3", "t5xxl_tokenizer"))


class SD3Autoencoder(Autoencoder):
    """Flux's, with latents of another size."""

    scale, shift = 1.5305, 0.0609
    refusal = "Stable Diffusion 3's autoencoder; choose its VAE"


def read_text(files: Files, config: SD3Config, device: torch.device) -> ThreeEncoders:
    """The text encoders with their tokenizers; EraseError when they do not fit the transformer."""
    l_file, g_file = named(files.clip_l, "--clip-l"), named(files.clip_g, "--clip-g")
    t5_file = named(files.t5, "--t5")
    clip, t5 = find_tokenizer(files, CLIP), find_tokenizer(files, T5)
    clip_g, projection = load_clip_g(g_file, clip)
    text = ThreeEncoders(
        load_clip(l_file, clip), clip_g, projection, clip, load_t5(t5_file), t5, files.t5_length
    )
    for what, tokenizer, encoder in (
        ("CLIP-L", clip, text.clip_l),
        ("CLIP-G", clip, clip_g),
        ("T5", t5, text.t5),
    ):
        check_tokenizer(what, tokenizer, encoder)
    pooled = text.clip_l.config.hidden_size + len(projection)
    check_width("CLIP-L and CLIP-G", "--clip-l or --clip-g", pooled, config.vec_in_dim)
    check_width("T5", "--t5", text.t5.config.d_model, config.context_in_dim)
    return text.to(device) if device.type == "cuda" else text


def read_vae(path: Path) -> VAE:
    """The autoencoder in a file."""
    return SD3Autoencoder.load(path)
