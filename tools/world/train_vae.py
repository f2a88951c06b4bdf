"""Teach the autoencoder's decoder the new pictures; its encoder, linear and exact, stays as it is.

    python -m tools.world.train_vae --out FOLDER [--steps 600]

Starts from MiniFlux's file, or from ``vae.safetensors`` in the folder, and writes the latter.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from erase_core.files import atomic
from erase_core.miniatures.miniflux import FOLDER
from erase_core.models.flux1.taesd import load_tiny

from .data import read_pictures, to_float

CROP = 6  # latent cells a side: 48 pixels
RIM = 1  # cells at a crop's edge that are not judged: the decoder looks past them
NOISE = 0.05  # generated latents are never quite on the mark


def crops(
    latents: np.ndarray, pictures: np.ndarray, count: int, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Random crops: latents (B, 16, 6, 6) and the pixels they stand for (B, 3, 48, 48), those
    chosen of four with the most detail."""
    z, x = [], []
    for _ in range(count):
        row = rng.randrange(len(pictures))
        spots = [(rng.randint(0, 16 - CROP), rng.randint(0, 16 - CROP)) for _ in range(4)]
        picture = pictures[row]
        found = [
            (float(cut.astype(np.float32).std(axis=(0, 1)).sum()), i, j, cut)
            for i, j in spots
            for cut in [picture[8 * i : 8 * (i + CROP), 8 * j : 8 * (j + CROP)]]
        ]
        _, i, j, cut = max(found[: rng.randint(1, 4)], key=lambda told: told[0])
        z.append(torch.from_numpy(latents[row, :, i : i + CROP, j : j + CROP]).float())
        x.append(cut)
    return torch.stack(z), to_float(np.stack(x))


def loss_of(made: Tensor, x: Tensor) -> Tensor:
    """Absolute difference of pixels and of their gradients, which keeps edges sharp."""
    inner = slice(8 * RIM, 8 * (CROP - RIM))
    made, x = made[:, :, inner, inner], x[:, :, inner, inner]
    loss = F.l1_loss(made, x)
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(made.diff(dim=axis), x.diff(dim=axis))
    return loss


def train(folder: Path, steps: int, seed: int = 1, batch: int = 16, lr: float = 5e-4) -> None:
    torch.manual_seed(seed)
    latents = np.load(folder / "latents.npy", mmap_mode="r")
    pictures = read_pictures(folder)
    own = folder / "vae.safetensors"
    path = own if own.exists() else FOLDER / "vae.safetensors"
    vae = load_tiny(path, torch.float32)
    net = vae.taesd_decoder.train().requires_grad_(True).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    rng, began, told = random.Random(seed), time.time(), []
    for step in range(1, steps + 1):
        z, x = crops(latents, pictures, batch, rng)
        z = z + NOISE * torch.randn_like(z)
        loss = loss_of(net(z.contiguous(memory_format=torch.channels_last)), x)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        told.append(loss.item())
        if step % 25 == 0:
            pace = (time.time() - began) / step
            print(f"vae {step}/{steps} loss {np.mean(told[-25:]):.4f} {pace:.2f} s", flush=True)
        if step % 100 == 0 or step == steps:
            tensors = {k: v.detach().half().contiguous() for k, v in vae.state_dict().items()}
            with atomic(own) as temporary:
                save_file(tensors, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    train(args.out, args.steps)


if __name__ == "__main__":
    main()
