"""What Qwen-Image has beside its transformer: Qwen2.5-VL, its tokenizer, and an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..base import VAE
from ..flux1.pipeline import check_tokenizer, check_width, find_tokenizer, named
from ..flux2.pipeline import QWEN
from .autoencoder import QwenImageAutoencoder
from .config import QwenImageConfig
from .text import ChatText, load_qwen

if TYPE_CHECKING:
    from ..files import Files

TOKENIZER = QWEN._replace(hub="Qwen/Qwen2.5-VL-7B-Instruct")


def read_text(files: Files, config: QwenImageConfig, device: torch.device) -> ChatText:
    """Qwen2.5-VL with its tokenizer; EraseError when it does not fit the transformer."""
    file = named(files.qwen, "--qwen")
    tokenizer = find_tokenizer(files, TOKENIZER)
    text = ChatText(load_qwen(file), tokenizer)
    check_tokenizer("Qwen2.5-VL", tokenizer, text.qwen)
    check_width("Qwen2.5-VL", "--qwen", text.qwen.config.hidden_size, config.context_in_dim)
    if device.type == "cuda":
        text.to(device)
    return text


def read_vae(path: Path) -> VAE:
    """The autoencoder in a file."""
    return QwenImageAutoencoder.load(path)
