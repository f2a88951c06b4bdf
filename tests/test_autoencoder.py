"""Flux's autoencoder against diffusers' with the same random weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.files import save_tensors
from erase_core.flux.autoencoder import SCALE, SHIFT, Autoencoder

LEVELS = 3
NAMES = (
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def bfl_name(name: str) -> str:
    """BFL's name for a tensor of diffusers'; it counts the decoder's levels from the other end."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    up = re.search(r"up_blocks\.(\d)", name)
    if up:
        name = name.replace(up[0], f"up.{LEVELS - 1 - int(up[1])}")
        name = name.replace("resnets", "block").replace("upsamplers.0", "upsample")
    return name


@pytest.fixture(scope="module")
def model() -> AutoencoderKL:
    torch.manual_seed(0)
    made = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    return made.eval()


def bfl_state(model: AutoencoderKL) -> dict[str, Tensor]:
    state = {bfl_name(name): tensor for name, tensor in model.state_dict().items()}
    square = {n: t[:, :, None, None] for n, t in state.items() if ".attn_1." in n and t.ndim == 2}
    return state | square


@torch.no_grad()
def test_encodes_and_decodes_as_diffusers_does(model: AutoencoderKL, tmp_path: Path) -> None:
    path = tmp_path / "ae.safetensors"
    save_tensors(path, bfl_state(model))
    ours = Autoencoder.load(path)
    pictures = torch.rand(2, 3, 32, 48)
    mean = model.encode(pictures * 2 - 1).latent_dist.mean
    expected = (mean - SHIFT) * SCALE
    assert torch.allclose(ours.encode(pictures), expected, rtol=1e-4, atol=1e-5 * expected.std())
    latents = torch.randn(2, 16, 8, 12)
    drawn = model.decode(latents / SCALE + SHIFT).sample
    assert (drawn.abs() < 1).float().mean() > 0.1
    assert torch.allclose(ours.decode(latents), (drawn / 2 + 0.5).clamp(0, 1), atol=1e-4)


def test_other_files_are_refused(model: AutoencoderKL, tmp_path: Path) -> None:
    path = tmp_path / "sd.safetensors"
    save_tensors(path, bfl_state(model) | {"decoder.conv_in.weight": torch.zeros(64, 4, 3, 3)})
    with pytest.raises(EraseError, match=r"not Flux's autoencoder; choose ae\.safetensors"):
        Autoencoder.load(path)
