"""What Z-Image has beside its transformer: Qwen3-4B, its tokenizer, and FLUX.1's autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..flux1.pipeline import check_tokenizer, check_width, find_tokenizer, named
from ..flux2.pipeline import QWEN
from ..flux2.text import load_qwen
from .config import ZImageConfig
from .text import UNUSED, ChatText

if TYPE_CHECKING:
    from ..files import Files


def read_text(files: Files, config: ZImageConfig, device: torch.device) -> ChatText:
    """Qwen3 with its tokenizer; EraseError when it does not fit the transformer."""
    file = named(files.qwen, "--qwen")
    tokenizer = find_tokenizer(files, QWEN)
    text = ChatText(load_qwen(file, UNUSED), tokenizer)
    check_tokenizer("Qwen3", tokenizer, text.qwen)
    check_width("Qwen3", "--qwen", text.qwen.config.hidden_size, config.context_in_dim)
    if device.type == "cuda":
        text.to(device)
    return text
