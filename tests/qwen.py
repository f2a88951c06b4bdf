"""A pipeline folder of a toy Qwen-Image, written by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
)
from finite import randomise
from klein import make_tokenizer
from sd3 import scattered
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from erase_core.models.qwen_image.config import QwenImageConfig
from erase_core.models.qwen_image.parity import diffusers_model

WIDTH = 256  # of Qwen2.5-VL, whose heads are 128 wide
CONFIG = QwenImageConfig(context_in_dim=WIDTH, hidden_size=128, num_heads=1, depth=2)


def make_qwen(words: int) -> Any:
    """Of random weights, its eyes among them."""
    torch.manual_seed(5)
    text = {
        "vocab_size": words,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
        },
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    }  # fmt: skip
    seen = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
        "out_hidden_size": WIDTH, "fullatt_block_indexes": [0],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=seen)
    return scattered(Qwen2_5_VLForConditionalGeneration(config))


def make_vae() -> Any:
    torch.manual_seed(6)
    vae = AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return vae.eval().requires_grad_(False)


def make_transformer() -> Any:
    return randomise(diffusers_model(CONFIG))


def make_pipeline() -> QwenImagePipeline:
    """Its tokenizer has other tokens before a prompt than the true one's 34."""
    tokenizer = make_tokenizer()
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(),
        text_encoder=make_qwen(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=make_transformer(),
    )
    before = pipeline.prompt_template_encode.partition("{}")[0]
    pipeline.prompt_template_encode_start_idx = len(tokenizer(before)["input_ids"])
    return pipeline


def save_pipeline(folder: Path) -> Path:
    make_pipeline().save_pretrained(folder)
    return folder
