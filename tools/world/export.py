"""Write a trained world as MiniFlux's files: transformer bfloat16, the rest float16.

python -m tools.world.export --out FOLDER --target FOLDER
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1.names import file_keys


def export(folder: Path, target: Path) -> None:
    """Split the averaged weights and the encoders; copy tokenizers, autoencoder, recognisers."""
    target.mkdir(parents=True, exist_ok=True)
    flux = {
        key.removeprefix("flux."): tensor.to(torch.bfloat16).contiguous()
        for key, tensor in load_file(folder / "flux.safetensors").items()
        if key.startswith("flux.")
    }
    about = {"format": "pt"}
    save_file(file_keys(flux), target / "transformer.safetensors", about)
    text = load_file(folder / "text.safetensors")
    text.pop("t5.encoder.embed_tokens.weight", None)  # the same tensor as t5.shared.weight
    for part, name in (("t5", "t5xxl"), ("clip", "clip_l")):
        own = {
            key.removeprefix(f"{part}."): tensor.half().contiguous()
            for key, tensor in text.items()
            if key.startswith(f"{part}.")
        }
        if part == "clip":  # names as in everyone's clip_l.safetensors
            own = {
                k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in own.items()
            }
        save_file(own, target / f"{name}.safetensors", about)
    for name in ("clip_l_tokenizer", "t5xxl_tokenizer"):
        shutil.copytree(folder / name, target / name, dirs_exist_ok=True)
    vae = folder / "vae.safetensors"
    shutil.copy(vae if vae.exists() else FOLDER / "vae.safetensors", target)
    for name in ("exam", "second"):
        shutil.copy(folder / f"recogniser_{name}.safetensors", target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    args = parser.parse_args()
    export(args.out, args.target)


if __name__ == "__main__":
    main()
