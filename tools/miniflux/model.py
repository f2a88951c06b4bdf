"""MiniFlux as it is trained: the transformer and both text encoders as one module."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from erase_core.models.base import Conditioning
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.tree import Flux

CONFIG = FluxConfig(
    vec_in_dim=128,
    context_in_dim=256,
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
)


class MiniFlux(nn.Module):
    """Flux.1-dev's architecture at width 256, with encoders shaped like CLIP-L and T5 v1.1."""

    def __init__(self, clip: PreTrainedTokenizerFast, t5: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.flux = Flux(CONFIG)
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=CONFIG.context_in_dim,
                d_kv=64,
                num_heads=4,
                d_ff=384,
                num_layers=2,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=CONFIG.vec_in_dim,
                intermediate_size=4 * CONFIG.vec_in_dim,
                num_hidden_layers=2,
                num_attention_heads=CONFIG.vec_in_dim // 64,
                projection_dim=CONFIG.vec_in_dim,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
            )
        )
        self._start_from_nothing()

    def _start_from_nothing(self) -> None:
        """Modulations and the last layer begin at zero, so that every block begins as identity."""
        for name, module in self.flux.named_modules():
            if name.endswith((".lin", "final_layer.linear")) and isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)

    def encode(self, t5_ids: Tensor, clip_ids: Tensor) -> Conditioning:
        """Token ids (B, L) and (B, M) to states (B, L, 256) and pooled vectors (B, 128)."""
        return Conditioning(
            self.t5(input_ids=t5_ids).last_hidden_state, self.clip(input_ids=clip_ids).pooler_output
        )
