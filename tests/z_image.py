"""A pipeline folder of a toy Z-Image, written by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from finite import randomise
from klein import WIDTH, make_qwen, make_tokenizer

DIM = 384  # whose MLP is as wide in diffusers as in ComfyUI


def make_vae(scale: float = 0.3611, shift: float = 0.1159) -> Any:
    """FLUX.1's, smaller, or one whose latents have another ``scale`` and ``shift``."""
    torch.manual_seed(6)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=16,
        sample_size=64,
        scaling_factor=scale,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return vae.eval().requires_grad_(False)


def make_transformer() -> Any:
    return randomise(
        ZImageTransformer2DModel(
            dim=DIM, n_layers=2, n_refiner_layers=1, n_heads=3, n_kv_heads=3, cap_feat_dim=WIDTH
        )
    )


def make_pipeline() -> ZImagePipeline:
    tokenizer = make_tokenizer()
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(),
        text_encoder=make_qwen(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=make_transformer(),
    )


def save_pipeline(folder: Path) -> Path:
    make_pipeline().save_pretrained(folder)
    return folder
