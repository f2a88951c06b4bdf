"""A pipeline folder of a toy FLUX.2 klein, written by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from finite import randomise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
LEARNED = ["a photo of a tiger in the deep snow", "user assistant", "a red car and a lion", "two"]
WIDTH = 32  # of Qwen3


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Of bytes, as Qwen3's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(LEARNED * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=SPECIAL[0], eos_token=SPECIAL[2], chat_template=CHAT
    )


def make_qwen(words: int) -> Any:
    """Of random weights, a layer more than is read."""
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms of ones would hide which states are taken
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def make_vae() -> Any:
    torch.manual_seed(6)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=32,
        sample_size=64,
    )
    vae.bn.running_mean.normal_(std=0.3)
    vae.bn.running_var.uniform_(0.5, 1.5)
    return vae.eval().requires_grad_(False)


def make_transformer() -> Any:
    return randomise(
        Flux2Transformer2DModel(
            num_layers=2,
            num_single_layers=2,
            num_attention_heads=1,
            joint_attention_dim=3 * WIDTH,
            guidance_embeds=False,
        )
    )


def make_pipeline(distilled: bool = False) -> Flux2KleinPipeline:
    tokenizer = make_tokenizer()
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(),
        text_encoder=make_qwen(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=make_transformer(),
        is_distilled=distilled,
    )


def save_pipeline(folder: Path, distilled: bool = False) -> Path:
    make_pipeline(distilled).save_pretrained(folder)
    return folder
