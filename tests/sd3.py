"""A pipeline folder of a toy Stable Diffusion 3.5, written by diffusers and transformers
themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from finite import randomise
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from z_image import make_vae

from erase_core.miniatures import miniflux
from erase_core.models.sd3.config import SD3Config
from erase_core.models.sd3.parity import diffusers_model
from erase_core.models.tokens import read_tokenizer

CLIP, PROJECTED = 64, 48  # widths of either CLIP, and of CLIP-G's pooled vector
CONFIG = SD3Config(
    context_in_dim=192, vec_in_dim=CLIP + PROJECTED, hidden_size=128, depth=2, dual=(0,),
    positions=16,
)  # fmt: skip


def make_tokenizer(name: str, **told: Any) -> PreTrainedTokenizerFast:
    """MiniFlux's."""
    tokenizer = read_tokenizer(miniflux.FOLDER / f"{name}_tokenizer")
    for what, value in told.items():
        setattr(tokenizer, what, value)
    return tokenizer


def make_clip(act: str, projected: int, seed: int) -> Any:
    """Of random weights; what projects a vector to as many numbers is no change, as CLIP-L's."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer("clip_l")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=1, projection_dim=projected, hidden_act=act,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = scattered(CLIPTextModelWithProjection(config))
    if projected == CLIP:
        torch.nn.init.eye_(model.text_projection.weight)
    return model


def make_t5() -> Any:
    torch.manual_seed(9)
    config = T5Config(
        vocab_size=len(make_tokenizer("t5xxl")), d_model=CONFIG.context_in_dim, d_kv=64,
        num_heads=2, d_ff=96, num_layers=2, feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    return scattered(T5EncoderModel(config))


def scattered(model: Any) -> Any:
    """Weights that let every layer matter: matrices of some size, norms that are not all one."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def make_transformer() -> Any:
    return randomise(diffusers_model(CONFIG))


def make_pipeline() -> StableDiffusion3Pipeline:
    first, second = make_tokenizer("clip_l"), make_tokenizer("clip_l", pad_token_id=0)
    first.model_max_length = second.model_max_length = 77
    return StableDiffusion3Pipeline(
        transformer=make_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(1.5305, 0.0609),
        text_encoder=make_clip("quick_gelu", CLIP, 7),
        tokenizer=first,
        text_encoder_2=make_clip("gelu", PROJECTED, 8),
        tokenizer_2=second,
        text_encoder_3=make_t5(),
        tokenizer_3=make_tokenizer("t5xxl"),
    )


def save_pipeline(folder: Path) -> Path:
    make_pipeline().save_pretrained(folder)
    return folder
