"""A small autoencoder in TAESD's layout: 16 latent channels, factor 8, pictures in [0, 1].

ComfyUI's VAELoader reads the same file: keys ``taesd_encoder.*`` and ``taesd_decoder.*`` and the
scalars ``vae_scale`` and ``vae_shift`` of Flux's latent format.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import EraseError
from ...tensors import read_weights
from .autoencoder import SCALE, SHIFT

WIDTH = 64
LATENT_CHANNELS = 16


def conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=bias)


class Block(nn.Module):
    """Three convolutions and a residual, ReLU at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Keeps latents within about three standard deviations."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def encoder() -> nn.Sequential:
    """Picture (B, 3, H, W) in [0, 1] -> latents of unit size (B, 16, H/8, W/8)."""
    layers: list[nn.Module] = [conv(3, WIDTH), Block()]
    for _ in range(3):
        layers += [conv(WIDTH, WIDTH, stride=2, bias=False), Block(), Block(), Block()]
    return nn.Sequential(*layers, conv(WIDTH, LATENT_CHANNELS))


def decoder() -> nn.Sequential:
    """Latents of unit size (B, 16, h, w) -> picture (B, 3, 8h, 8w) about [0, 1]."""
    layers: list[nn.Module] = [Clamp(), conv(LATENT_CHANNELS, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [Block(), Block(), Block(), nn.Upsample(scale_factor=2)]
        layers += [conv(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, Block(), conv(WIDTH, 3))


class TinyVAE(nn.Module):
    """Encoder and decoder between pictures in [0, 1] and the latents the transformer sees.

    The transformer's latents are those of unit size; ``vae_scale`` and ``vae_shift`` only tell
    hosts, which keep Flux latents as ``latent / 0.3611 + 0.1159``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = encoder()
        self.taesd_decoder = decoder()
        self.vae_scale = nn.Parameter(torch.tensor(SCALE))
        self.vae_shift = nn.Parameter(torch.tensor(SHIFT))

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8) in float32."""
        return self._run(self.taesd_encoder, pictures)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, h, w) -> (B, 3, 8h, 8w) clamped to [0, 1], in float32."""
        return self._run(self.taesd_decoder, latents).clamp(0, 1)

    def _run(self, net: nn.Sequential, x: Tensor) -> Tensor:
        """In the weights' precision, channels last: in bfloat16 over twice as fast on a CPU."""
        x = x.to(self.vae_scale.dtype, memory_format=torch.channels_last)
        return net(x).float().contiguous()


def load_tiny(path: Path, dtype: torch.dtype = torch.bfloat16) -> TinyVAE:
    """A tiny autoencoder's file in ``dtype``; EraseError when it is not one with 16 channels."""
    vae, tensors = TinyVAE(), read_weights(path)
    try:
        vae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise EraseError(
            f"{path} is no tiny autoencoder with 16 channels; choose another."
        ) from error
    return vae.to(dtype).train(False).requires_grad_(False)
