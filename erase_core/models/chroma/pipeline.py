"""What Chroma has beside its transformer: T5 with its tokenizer, and Flux's autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..flux1 import pipeline
from ..flux1.pipeline import check_tokenizer, check_width, find_tokenizer, named
from ..flux1.text import load_t5
from .config import ChromaConfig
from .text import T5Text

if TYPE_CHECKING:
    from ..files import Files

# In a folder of FLUX.1's "tokenizer" is CLIP's.
T5 = pipeline.T5._replace(local=("t5xxl_tokenizer", "tokenizer_2", "tokenizer"))


def read_text(files: Files, config: ChromaConfig, device: torch.device) -> T5Text:
    """T5 with its tokenizer; EraseError when it does not fit the transformer."""
    file = named(files.t5, "--t5")
    tokenizer = find_tokenizer(files, T5)
    text = T5Text(load_t5(file), tokenizer, files.t5_length)
    check_tokenizer("T5", tokenizer, text.t5)
    check_width("T5", "--t5", text.t5.config.d_model, config.context_in_dim)
    return text.to(device) if device.type == "cuda" else text
