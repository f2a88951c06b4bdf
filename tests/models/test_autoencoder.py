"""Flux's autoencoder against diffusers' with the same random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from erase_core.errors import EraseError
from erase_core.models.flux1.autoencoder import SCALE, SHIFT, Autoencoder, bfl_names
from erase_core.tensors import save_tensors

LEVELS = 3


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


BFL = {  # of ae.safetensors
    "encoder.down.0.block.1.conv2.weight": (32, 32, 3, 3),
    "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
    "encoder.down.0.downsample.conv.weight": (32, 32, 3, 3),
    "encoder.mid.attn_1.k.weight": (64, 64, 1, 1),
    "decoder.mid.attn_1.proj_out.weight": (64, 64, 1, 1),
    "decoder.mid.block_2.norm1.weight": (64,),
    "decoder.up.0.block.0.nin_shortcut.weight": (32, 64, 1, 1),
    "decoder.up.2.upsample.conv.weight": (64, 64, 3, 3),
    "decoder.norm_out.weight": (32,),
}


def load(model: AutoencoderKL, folder: Path, layout: str) -> Autoencoder:
    """Diffusers' folder in shards, or its tensors under BFL's names in one file."""
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    if layout == "diffusers":
        return Autoencoder.load(folder)
    tensors = bfl_names(model.state_dict())
    assert {name: tuple(tensors[name].shape) for name in BFL} == BFL
    save_tensors(folder / "ae.safetensors", tensors)
    return Autoencoder.load(folder / "ae.safetensors")


@pytest.mark.parametrize("layout", ["diffusers", "bfl"])
@torch.no_grad()
def test_encodes_and_decodes_as_diffusers_does(
    model: AutoencoderKL, tmp_path: Path, layout: str
) -> None:
    ours = load(model, tmp_path, layout)
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
    save_tensors(
        path, bfl_names(model.state_dict()) | {"decoder.conv_in.weight": torch.zeros(64, 4, 3, 3)}
    )
    with pytest.raises(EraseError, match=r"not Flux's autoencoder; choose ae\.safetensors"):
        Autoencoder.load(path)
