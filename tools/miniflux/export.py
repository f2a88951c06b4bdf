"""Write a trained stage as MiniFlux's files: transformer bfloat16, encoders float16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from train_flux import averaged

from erase_core.models.files import PRESETS
from erase_core.models.flux1.names import file_keys

FILES = {
    "flux": ("transformer", torch.bfloat16),
    "t5": ("t5xxl", torch.float16),
    "clip": ("clip_l", torch.float16),
}


def export(folder: Path, stage: str, target: Path) -> None:
    """Split the averaged weights of a stage; copy tokenizers, autoencoder and recogniser."""
    target.mkdir(parents=True, exist_ok=True)
    state = averaged(folder / f"{stage}.safetensors")
    state.pop("t5.encoder.embed_tokens.weight", None)  # the same tensor as t5.shared.weight
    for part, (name, dtype) in FILES.items():
        tensors = {
            _file_key(part, key[len(part) + 1 :]): tensor.to(dtype).contiguous()
            for key, tensor in state.items()
            if key.startswith(f"{part}.")
        }
        if part == "flux":
            tensors = file_keys(tensors)  # BFL's ".scale", which every host reads
        metadata = {"format": "pt"} | (presets() if part == "flux" else {})
        save_file(tensors, target / f"{name}.safetensors", metadata)
    for name in ("clip_l_tokenizer", "t5xxl_tokenizer"):
        shutil.copytree(folder / name, target / name, dirs_exist_ok=True)
    for name in ("vae.safetensors", "recogniser.safetensors"):
        shutil.copy(folder / name, target / name)


def presets() -> dict[str, str]:
    """The transformer's presets (presets.json beside this file) as its file carries them."""
    text = (Path(__file__).parent / "presets.json").read_text(encoding="utf-8")
    return {PRESETS: json.dumps(json.loads(text))}


def _file_key(part: str, key: str) -> str:
    """Names as in everyone's clip_l.safetensors, which transformers 5 shortens."""
    return f"text_model.{key}" if part == "clip" and not key.startswith("text_model.") else key
