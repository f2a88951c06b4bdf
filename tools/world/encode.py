"""Encode the pictures: latents of the autoencoder, and the features that training aligns with.

    python -m tools.world.encode --out FOLDER [--vae FILE] latents features

Writes ``latents.npy`` (N, 16, 16, 16) and ``features.npy`` (N, 64, 128), both float16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1.taesd import TinyVAE, load_tiny

from .data import cuts, read_pictures, to_float
from .train_recogniser import load

CHUNK = 200


def linear_map(vae: TinyVAE) -> tuple[Tensor, Tensor]:
    """Matrix (192, 16) and bias (16,) of an encoder that is linear in 8 x 8 patches, as MiniFlux's
    is: its answers to every single pixel. Twenty times faster than its convolutions."""
    probes = torch.zeros(193, 3, 16, 16)
    probes[1:, :, :8, :8] = torch.eye(192).reshape(192, 3, 8, 8)
    with torch.no_grad():
        told = vae.encode(probes)[:, :, 0, 0]
    return told[1:] - told[0], told[0]


def latents_of(pictures: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """(B, 3, 128, 128) -> (B, 16, 16, 16), as :func:`linear_map` has it."""
    x = pictures.reshape(-1, 3, 16, 8, 16, 8).permute(0, 2, 4, 1, 3, 5).flatten(3)
    return (x @ matrix + bias).permute(0, 3, 1, 2)


def write(path: Path, pictures: np.ndarray, shape: tuple[int, ...], of: Callable) -> None:
    """``of(pictures)`` for all of them, in float16."""
    part = path.with_suffix(".part.npy")
    out = np.lib.format.open_memmap(part, "w+", np.float16, (len(pictures), *shape))
    for rows in cuts(len(pictures), CHUNK):
        with torch.no_grad():
            out[rows] = of(to_float(pictures[rows])).half().numpy()
    out.flush()
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="+", choices=("latents", "features"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, default=FOLDER / "vae.safetensors")
    args = parser.parse_args()
    pictures = read_pictures(args.out)
    if "latents" in args.what:
        matrix, bias = linear_map(load_tiny(args.vae, torch.float32))
        write(
            args.out / "latents.npy",
            pictures,
            (16, 16, 16),
            lambda x: latents_of(x, matrix, bias),
        )
    if "features" in args.what:
        model = load(args.out, "align")
        write(
            args.out / "features.npy",
            pictures,
            (64, 128),
            lambda x: model(x).features.flatten(2).transpose(1, 2),
        )


if __name__ == "__main__":
    main()
