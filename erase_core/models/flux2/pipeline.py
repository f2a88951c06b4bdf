"""What FLUX.2 klein has beside its transformer: Qwen3 with its tokenizer, and an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...errors import EraseError
from ...files import read_json
from ..flux1.pipeline import Tokenizer, check_tokenizer, check_width, find_tokenizer, named
from .config import Flux2Config
from .text import LAYERS, QwenText, load_qwen

if TYPE_CHECKING:
    from ..files import Files

QWEN = Tokenizer(
    ("tokenizer", "qwen_tokenizer"), "comfy/text_encoders/qwen25_tokenizer", "Qwen/Qwen3-4B"
)
_INDEX = "model_index.json"


def read_text(files: Files, config: Flux2Config, device: torch.device) -> QwenText:
    """Qwen3 with its tokenizer; EraseError when it does not fit the transformer."""
    file = named(files.qwen, "--qwen")
    tokenizer = find_tokenizer(files, QWEN)
    text = QwenText(load_qwen(file), tokenizer)
    check_tokenizer("Qwen3", tokenizer, text.qwen)
    width = len(LAYERS) * text.qwen.config.hidden_size
    check_width("Qwen3", "--qwen", width, config.context_in_dim)
    if tokenizer.pad_token_id is None:
        raise EraseError("The tokenizer has no padding; choose Qwen3's with --tokenizers.")
    return text.to(device) if device.type == "cuda" else text


def distilled(file: Path) -> bool:
    """Whether a file or folder is the klein of 4 steps: the tensors are those of the base model, so
    that a pipeline's index tells, else the name."""
    for index in (file / _INDEX, file.parent / _INDEX):
        if index.is_file():
            told = read_json(index)
            return isinstance(told, dict) and bool(told.get("is_distilled"))
    name = file.stem.lower()
    return "klein" in name and "base" not in name
