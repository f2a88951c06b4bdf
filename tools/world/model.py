"""The small Flux of this world and its two encoders, all in shapes that hosts load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import Conditioning
from erase_core.models.flux1.text import tokenize
from erase_core.models.flux1.tree import Flux

CONFIG = FluxConfig(
    vec_in_dim=128,
    context_in_dim=256,
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
)
T5_LAYERS, T5_FF = 4, 512
LONG = 64  # T5 tokens of a prompt wherever MiniFlux is used
SHORT = 32  # in most of the training
CLIP_TOKENS = 32


def make_t5(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """An untrained encoder. Its table begins small: a word then moves by percents a step, not by
    thousandths, and 300 steps teach what otherwise is not begun."""
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=CONFIG.context_in_dim,
            d_kv=64,
            num_heads=4,
            d_ff=T5_FF,
            num_layers=T5_LAYERS,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    with torch.no_grad():
        t5.shared.weight.mul_(0.1)
    return t5


def make_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    width = CONFIG.vec_in_dim
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=width // 64,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def make_flux() -> Flux:
    """A transformer that begins as the identity: modulations and the last layer are zero."""
    flux = Flux(CONFIG)
    for name, module in flux.named_modules():
        if name.endswith((".lin", "final_layer.linear")) and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return flux


@dataclass
class Encoders:
    """Both encoders with their tokenizers."""

    t5: T5EncoderModel
    clip: CLIPTextModel
    t5_tokenizer: PreTrainedTokenizerFast
    clip_tokenizer: PreTrainedTokenizerFast

    @classmethod
    def new(cls, folder: Path) -> Encoders:
        """Untrained encoders for the tokenizers in a folder."""
        t5 = PreTrainedTokenizerFast.from_pretrained(folder / "t5xxl_tokenizer")
        clip = PreTrainedTokenizerFast.from_pretrained(folder / "clip_l_tokenizer")
        return cls(make_t5(t5), make_clip(clip), t5, clip)

    def parts(self) -> nn.ModuleDict:
        return nn.ModuleDict({"t5": self.t5, "clip": self.clip})

    def ids(self, prompts: list[str], length: int = SHORT) -> tuple[Tensor, Tensor]:
        """T5 ids (B, length) and CLIP ids (B, CLIP_TOKENS)."""
        return (
            tokenize(self.t5_tokenizer, prompts, length),
            tokenize(self.clip_tokenizer, prompts, CLIP_TOKENS),
        )

    def embed(self, prompts: list[str], length: int = SHORT) -> Conditioning:
        """States (B, length, 256) and pooled vectors (B, 128)."""
        t5_ids, clip_ids = self.ids(prompts, length)
        states = self.t5(input_ids=t5_ids).last_hidden_state
        return Conditioning(states, self.clip(input_ids=clip_ids).pooler_output)

    @torch.no_grad()
    def encode(self, prompts: list[str], length: int = LONG) -> Conditioning:
        return self.embed(prompts, length)
