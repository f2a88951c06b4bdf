"""Qwen-Image's autoencoder: Wan's, of videos, as it is for a single picture.

Its convolutions look back in time, where a first picture has nothing but zeros: of each kernel the
last slice is left, and what changes the number of pictures is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import EraseError
from ...tensors import read_weights
from ..flux1.autoencoder import Autoencoder

# Of what the encoder makes of pictures, channel by channel.
MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
DEVIATION = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
_NAMES = (  # diffusers' to Wan's, one after another
    (r"\.down_blocks\.", ".downsamples."),
    (r"mid_block\.resnets\.0", "middle.0"),
    (r"mid_block\.attentions\.0", "middle.1"),
    (r"mid_block\.resnets\.1", "middle.2"),
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"conv_shortcut", "shortcut"),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
)


class QwenImageAutoencoder(Autoencoder):
    """Between pictures in [0, 1] and the latents that the transformer sees, in float32."""

    refusal: ClassVar[str] = "Qwen-Image's autoencoder; choose qwen_image_vae.safetensors"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__({n: t[:, :, -1] if t.ndim == 5 else t for n, t in tensors.items()})

    @classmethod
    def load(cls, path: Path | str) -> QwenImageAutoencoder:
        """Read a file, Wan's or diffusers', or the ``vae`` folder of a pipeline; EraseError unless
        it is such an autoencoder."""
        tensors = read_weights(Path(path))
        try:
            if any(".mid_block." in name for name in tensors):
                tensors = wan_names(tensors)
            cls({name: tensor.to("meta") for name, tensor in tensors.items()}).try_out(16, 4)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise EraseError(f"{path} is not {cls.refusal}.") from error
        return cls(tensors)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8)."""
        x = self._conv("encoder.conv1", pictures.float() * 2 - 1)
        x = self._middle("encoder", self._levels("encoder.downsamples", x))
        mean = self._conv("conv1", self._out("encoder", x)).chunk(2, dim=1)[0]
        return (mean - _row(MEAN, mean)) / _row(DEVIATION, mean)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, h, w) -> (B, 3, 8h, 8w) clamped to [0, 1]."""
        latents = latents.float()
        wide = latents * _row(DEVIATION, latents) + _row(MEAN, latents)
        x = self._middle("decoder", self._conv("decoder.conv1", self._conv("conv2", wide)))
        x = self._out("decoder", self._levels("decoder.upsamples", x))
        return (x / 2 + 0.5).clamp(0, 1)

    def _levels(self, name: str, x: Tensor) -> Tensor:
        """All blocks, and between them what halves or doubles a picture's sides."""
        for index in range(self._count(name)):
            part = f"{name}.{index}"
            if f"{part}.resample.1.weight" not in self._tensors:
                x = self._block(part, x)
            elif name.startswith("encoder."):
                x = self._conv(f"{part}.resample.1", F.pad(x, (0, 1, 0, 1)), 2, 0)
            else:
                doubled = F.interpolate(x, scale_factor=2.0, mode="nearest-exact")
                x = self._conv(f"{part}.resample.1", doubled)
        return x

    def _norm(self, name: str, x: Tensor) -> Tensor:
        gamma = self._tensors[f"{name}.gamma"].to(x.device).flatten()[:, None, None]
        return F.normalize(x, dim=1) * len(gamma) ** 0.5 * gamma

    def _block(self, name: str, x: Tensor) -> Tensor:
        """Two normalised convolutions and a residual."""
        y = x
        for norm, conv in ((0, 2), (3, 6)):
            normed = F.silu(self._norm(f"{name}.residual.{norm}", y))
            y = self._conv(f"{name}.residual.{conv}", normed)
        if f"{name}.shortcut.weight" in self._tensors:
            x = self._conv(f"{name}.shortcut", x)
        return x + y

    def _middle(self, name: str, x: Tensor) -> Tensor:
        """A block, attention over all places, a block."""
        x = self._block(f"{name}.middle.0", x)
        attn = f"{name}.middle.1"
        stacked = self._conv(f"{attn}.to_qkv", self._norm(f"{attn}.norm", x))
        q, k, v = stacked.flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return self._block(f"{name}.middle.2", x + self._conv(f"{attn}.proj", mixed))

    def _out(self, name: str, x: Tensor) -> Tensor:
        return self._conv(f"{name}.head.2", F.silu(self._norm(f"{name}.head.0", x)))


def _row(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A number for each channel, (C, 1, 1)."""
    return torch.tensor(values, device=like.device)[:, None, None]


def wan_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers' tensors under Wan's names: the decoder's blocks stand in one row."""
    up = r"up_blocks\.(\d+)\.(?:resnets\.(\d+)|upsamplers\.0)"
    found = [match for name in tensors if (match := re.search(up, name))]
    blocks = 1 + max(int(match[2] or 0) for match in found)

    def place(match: re.Match[str]) -> str:
        index = blocks if match[2] is None else int(match[2])
        return f"upsamples.{int(match[1]) * (blocks + 1) + index}"

    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[re.sub(up, place, name)] = tensor
    return renamed
