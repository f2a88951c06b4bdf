"""Flux's autoencoder, run straight from the tensors of ``ae.safetensors`` with their BFL names."""

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

SCALE, SHIFT = 0.3611, 0.1159  # of Flux's latents: what the transformer sees is about unit size
GROUPS = 32
_NAMES = (  # diffusers' to BFL's, one after another
    (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets", r"up.\1.block"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


class Autoencoder:
    """Between pictures in [0, 1] and the latents that the transformer sees, in float32.

    Sizes and depths are those of the tensors. Encoding takes the mean, so that it repeats. Other
    families have latents of another ``scale`` and ``shift``.
    """

    scale: ClassVar[float] = SCALE
    shift: ClassVar[float] = SHIFT
    refusal: ClassVar[str] = "Flux's autoencoder; choose ae.safetensors"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.float() for name, tensor in tensors.items()}

    @classmethod
    def load(cls, path: Path | str) -> Autoencoder:
        """Read a file, BFL's or diffusers', or the ``vae`` folder of a pipeline; EraseError unless
        it is such an autoencoder."""
        tensors = read_weights(Path(path))
        try:
            if any(".mid_block." in name for name in tensors):
                tensors = bfl_names(tensors)
            cls({name: tensor.to("meta") for name, tensor in tensors.items()}).try_out(16, 4)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise EraseError(f"{path} is not {cls.refusal}.") from error
        return cls(tensors)

    @property
    def has_encoder(self) -> bool:
        """Whether there are weights to encode with."""
        return any(name.startswith("encoder.") for name in self._tensors)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8)."""
        mean = self._encoded(pictures).chunk(2, dim=1)[0]
        return (mean - self.shift) * self.scale

    def _encoded(self, pictures: Tensor) -> Tensor:
        """What the encoder makes of pictures in [0, 1]: mean and log variance."""
        x = self._conv("encoder.conv_in", pictures.float() * 2 - 1)
        levels = self._count("encoder.down")
        for level in range(levels):
            x = self._blocks(f"encoder.down.{level}", x)
            if level < levels - 1:
                padded = F.pad(x, (0, 1, 0, 1))
                x = self._conv(f"encoder.down.{level}.downsample.conv", padded, 2, 0)
        return self._out("encoder", self._middle("encoder", x))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 16, h, w) -> (B, 3, 8h, 8w) clamped to [0, 1]."""
        return self._decoded(latents.float() / self.scale + self.shift)

    def _decoded(self, latents: Tensor) -> Tensor:
        """Pictures of what the decoder gets."""
        x = self._conv("decoder.conv_in", latents)
        x = self._middle("decoder", x)
        for level in reversed(range(self._count("decoder.up"))):
            x = self._blocks(f"decoder.up.{level}", x)
            if level:
                doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self._conv(f"decoder.up.{level}.upsample.conv", doubled)
        return (self._out("decoder", x) / 2 + 0.5).clamp(0, 1)

    def try_out(self, channels: int, side: int) -> None:
        """Encode and decode without storage: every tensor must be there and fit. What PyTorch and
        the table of tensors raise is the answer, and ValueError for other sizes. A decoder may be
        alone."""
        latents = torch.empty(1, channels, side, side, device="meta")
        pictures = self.decode(latents)
        fits = pictures.shape[:2] == (1, 3)
        if not fits or (self.has_encoder and self.encode(pictures).shape != latents.shape):
            raise ValueError("pictures or latents of another size")

    def _count(self, prefix: str) -> int:
        start = len(prefix) + 1
        return len({k[start:].split(".")[0] for k in self._tensors if k.startswith(f"{prefix}.")})

    def _conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight.to(x.device), bias.to(x.device), stride, padding)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return F.group_norm(x, GROUPS, weight.to(x.device), bias.to(x.device), eps=1e-6)

    def _block(self, name: str, x: Tensor) -> Tensor:
        """Two normalised convolutions and a residual."""
        y = self._conv(f"{name}.conv1", F.silu(self._norm(f"{name}.norm1", x)))
        y = self._conv(f"{name}.conv2", F.silu(self._norm(f"{name}.norm2", y)))
        if f"{name}.nin_shortcut.weight" in self._tensors:
            x = self._conv(f"{name}.nin_shortcut", x)
        return x + y

    def _blocks(self, name: str, x: Tensor) -> Tensor:
        for index in range(self._count(f"{name}.block")):
            x = self._block(f"{name}.block.{index}", x)
        return x

    def _middle(self, name: str, x: Tensor) -> Tensor:
        """A block, attention over all places, a block."""
        x = self._block(f"{name}.mid.block_1", x)
        attn = f"{name}.mid.attn_1"
        normed = self._norm(f"{attn}.norm", x)
        q, k, v = (
            self._conv(f"{attn}.{part}", normed).flatten(2).transpose(1, 2)[:, None]
            for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        x = x + self._conv(f"{attn}.proj_out", mixed)
        return self._block(f"{name}.mid.block_2", x)

    def _out(self, name: str, x: Tensor) -> Tensor:
        return self._conv(f"{name}.conv_out", F.silu(self._norm(f"{name}.norm_out", x)))


def bfl_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers' tensors under BFL's names: the decoder's levels count from the other end, and the
    attention's matrices are convolutions."""
    top = max(int(n[1]) for name in tensors if (n := re.search(r"up_blocks\.(\d+)", name)))
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"\bup\.(\d+)", lambda level: f"up.{top - int(level[1])}", name)
        square = ".attn_1." in name and tensor.ndim == 2
        found[name] = tensor[:, :, None, None] if square else tensor
    return found
