"""Render MiniFlux's training pictures and encode them by the principal components of patches."""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from render import SIZE, random_scene, render
from torch import Tensor

from erase_core.miniatures.miniflux.captions import Scene
from erase_core.models.flux1.taesd import LATENT_CHANNELS, TinyVAE

PATCH = 8
CHUNK = 500


@dataclass
class World:
    """``pictures`` (N, 128, 128, 3) uint8 and the ``scenes`` they show."""

    pictures: np.ndarray
    scenes: list[Scene]


def _chunk(seed: int) -> tuple[np.ndarray, list[Scene]]:
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(CHUNK)]
    return np.stack([np.asarray(render(scene, rng)) for scene in scenes]), scenes


def render_world(count: int, seed: int) -> World:
    """``count`` pictures (a multiple of 500), the same for the same seed on any machine."""
    seeds = range(seed * 1_000_000, seed * 1_000_000 + count // CHUNK)
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(_chunk, seeds))
    return World(np.concatenate([p for p, _ in parts]), [s for _, part in parts for s in part])


def to_float(pictures: np.ndarray) -> Tensor:
    """(N, 128, 128, 3) uint8 -> (N, 3, 128, 128) float32 in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def principal_components(pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Projection (16, 192) of 8 x 8 patches and its mean (16,), latents of about unit size.

    Each component is divided by the root of its deviation, so that fine ones are not drowned in
    the noise of the flow, yet still weigh less than coarse ones.
    """
    side = SIZE // PATCH
    x = to_float(pictures).unflatten(3, (side, PATCH)).unflatten(2, (side, PATCH))
    x = x.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * PATCH * PATCH).double()
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0)[:LATENT_CHANNELS], vectors.flip(1)[:, :LATENT_CHANNELS]
    share = values.sum() / (x - mean).square().sum(1).mean()
    print(f"principal components keep {share:.1%} of the variance")
    deviation = values.sqrt()
    damped = deviation**0.5
    damped = damped * (values / damped**2).mean().sqrt()
    projection = (vectors / damped).T
    return projection.float(), (projection @ mean).float()


@torch.no_grad()
def write_linear_encoder(vae: TinyVAE, projection: Tensor, mean: Tensor) -> None:
    """Set the convolutional encoder so that it computes exactly ``projection @ patch - mean``.

    Pixels are copied into channels (they are not negative, so ReLU passes them), strided
    convolutions gather 2 x 2 neighbours, and the last one projects into pairs of +z and -z.
    """
    net = vae.taesd_encoder
    for parameter in net.parameters():
        parameter.zero_()
    for channel in range(3):
        net[0].weight[channel, channel, 1, 1] = 1
    for layer, channels in ((2, 3), (6, 12)):
        for c in range(channels):
            for a in range(2):
                for b in range(2):
                    net[layer].weight[c * 4 + a * 2 + b, c, a + 1, b + 1] = 1
    patch = projection.reshape(LATENT_CHANNELS, 3, 2, 2, 2, 2, 2, 2)  # c, y4 y2 y1, x4 x2 x1
    for c in range(48):
        channel, y1, x1, y2, x2 = c // 16, c // 8 % 2, c // 4 % 2, c // 2 % 2, c % 2
        for a in range(2):
            for b in range(2):
                weight = patch[:, channel, a, y2, y1, b, x2, x1]
                net[10].weight[:16, c, a + 1, b + 1] = weight
                net[10].weight[16:32, c, a + 1, b + 1] = -weight
    for z in range(LATENT_CHANNELS):
        net[14].weight[z, z, 1, 1] = 1
        net[14].weight[z, z + 16, 1, 1] = -1
    net[14].bias.copy_(-mean)


def encode_all(projection: Tensor, mean: Tensor, pictures: np.ndarray) -> Tensor:
    """Latents (N, 16, 16, 16) float16: what the convolutional encoder gives, in one product."""
    side = SIZE // PATCH
    parts = []
    for start in range(0, len(pictures), CHUNK):
        x = to_float(pictures[start : start + CHUNK]).unflatten(3, (side, PATCH))
        x = x.unflatten(2, (side, PATCH)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        parts.append((x @ projection.T - mean).permute(0, 3, 1, 2).half())
    return torch.cat(parts).contiguous()


def build(count: int, seed: int) -> tuple[World, Tensor, TinyVAE]:
    """World, latents and an autoencoder whose encoder is ready (its decoder is not)."""
    world = render_world(count, seed)
    projection, mean = principal_components(world.pictures[:3000])
    vae = TinyVAE()
    write_linear_encoder(vae, projection, mean)
    return world, encode_all(projection, mean, world.pictures), vae


def read_scenes(path: Path) -> list[Scene]:
    """Scenes written as JSON beside the pictures."""
    rows = json.loads(path.read_text())
    return [Scene(**{**r, "things": tuple(r["things"]), "words": tuple(r["words"])}) for r in rows]
