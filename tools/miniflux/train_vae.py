"""Train the decoder of MiniFlux's autoencoder; its encoder is linear and exact from the start."""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from data import to_float
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase_core.models.flux1.taesd import TinyVAE

CROP = 8  # latent cells a side: 64 pixels
NOISE = 0.05  # generated latents are never quite on the mark


def crops(
    latents: Tensor, pictures: Tensor, rows: list[int], rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Random crops: latents (B, 16, 8, 8) and the pixels they stand for (B, 3, 64, 64)."""
    z, x = [], []
    for row in rows:
        i, j = rng.randint(0, 16 - CROP), rng.randint(0, 16 - CROP)
        z.append(latents[row, :, i : i + CROP, j : j + CROP].float())
        x.append(pictures[row, 8 * i : 8 * (i + CROP), 8 * j : 8 * (j + CROP)])
    return torch.stack(z), to_float(torch.stack(x).numpy())


def loss_of(made: Tensor, x: Tensor) -> Tensor:
    """Absolute difference of pixels and of their gradients, which keeps edges sharp."""
    loss = F.l1_loss(made, x)
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(made.diff(dim=axis), x.diff(dim=axis))
    return loss


def train(folder: Path, steps: int, seed: int, batch: int = 16) -> None:
    """Train the decoder from the linear encoder's latents, and write the autoencoder."""
    torch.manual_seed(seed)
    data = load_file(folder / "world.safetensors")
    vae = TinyVAE()
    vae.load_state_dict(load_file(folder / "vae_linear.safetensors"))
    net = vae.taesd_decoder.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3, total_steps=steps, pct_start=0.05
    )
    rng, began = random.Random(seed), time.time()
    for step in range(steps):
        rows = [rng.randrange(len(data["pictures"])) for _ in range(batch)]
        z, x = crops(data["latents"], data["pictures"], rows, rng)
        z = z + NOISE * torch.randn_like(z)
        with torch.autocast("cpu", torch.bfloat16):
            made = net(z.contiguous(memory_format=torch.channels_last))
        loss = loss_of(made.float(), x)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            pace = (time.time() - began) / (step + 1)
            print(f"vae {step + 1}/{steps} loss {loss.item():.4f} {pace:.2f} s", flush=True)
    state = {name: tensor.half().contiguous() for name, tensor in vae.state_dict().items()}
    save_file(state, folder / "vae.safetensors")
