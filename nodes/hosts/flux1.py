"""FLUX.1 in the host: its transformer as a tree that can be trained through, its text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch
from torch import Tensor

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.flux1 import FAMILY
from ...erase_core.models.flux1.config import FluxConfig
from ...erase_core.models.flux1.names import skeleton
from ...erase_core.models.flux1.tree import Flux
from ...erase_core.models.tokens import token_mask
from .base import Host, base_name, kind_of
from .layers import check_blocks, filled, t5_tokens

ADVICE = "connect a FLUX.1-dev or FLUX.1-schnell text-to-image model"
CLIP_LENGTH = 77


def owns(model: Any) -> bool:
    """Whether a MODEL is a FLUX.1. The host's own subclasses of its Flux (FLUX.2, Chroma, ...) are
    other families; those of node packs are loaders of their own."""
    return kind_of(model) is comfy.model_base.Flux


def sizes(model: Any) -> FluxConfig:
    """The sizes of a FLUX.1 MODEL; EraseError unless it turns a prompt into a picture."""
    check_blocks(model, ADVICE)
    config = FluxConfig.from_tree(model.model.diffusion_model)
    if config.in_channels != 64:
        raise EraseError(f"This MODEL takes more than a prompt (Fill, Depth or Canny); {ADVICE}.")
    if "kontext" in base_name(model).lower():
        raise EraseError(f"This MODEL is FLUX.1 Kontext, which edits pictures; {ADVICE}.")
    return config


def tree(model: Any, config: FluxConfig) -> Flux:
    """A Flux with the core's names that computes with the MODEL's own layers and can be trained on;
    EraseError when it computes in float16."""
    return filled(skeleton(config), model)


def shift(model: Any) -> float | None:
    """The shift of the MODEL's noise schedule: FLUX.1-dev's mu; None for schnell, without one."""
    sampling = model.get_model_object("model_sampling")
    flux = isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
    return float(sampling.shift) if flux else None


class Text:
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    Prompts are taken as they stand: brackets are no weights. EraseError when the CLIP is not
    Flux's, or not that of a MODEL of these sizes.
    """

    def __init__(self, clip: Any, config: FluxConfig) -> None:
        t5 = getattr(clip.tokenizer, "t5xxl", None)
        if t5 is None or set(clip.tokenize("")) != {"l", "t5xxl"}:
            raise EraseError(
                "This CLIP is not Flux's CLIP-L and T5; load both with DualCLIPLoader, type flux, "
                "or take the CLIP of EraseAnything's Load Flux."
            )
        self.clip, self.config = clip, config
        self.tokenizer = t5.tokenizer
        self.length = len(clip.tokenize("")["t5xxl"][0])

    @property
    def flop(self) -> float:
        """Of both encoders on one prompt."""
        both = self.clip.cond_stage_model
        return linear_flop(both.t5xxl, self.length) + linear_flop(both.clip_l, CLIP_LENGTH)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, length, context_in_dim) and pooled (B, vec_in_dim), float32 on the CPU."""
        cond = Conditioning.cat([self._encode(prompt) for prompt in prompts])
        assert cond.pooled is not None
        widths = cond.context.shape[-1], cond.pooled.shape[-1]
        if widths != (self.config.context_in_dim, self.config.vec_in_dim):
            raise EraseError(
                "This CLIP belongs to another MODEL; MiniFlux and FLUX.1 each need their own."
            )
        return cond

    def release(self) -> None:
        """Nothing: the host lets its text encoders go by itself."""

    def _encode(self, prompt: str) -> Conditioning:
        tokens = t5_tokens(self.clip, prompt, self.length)
        with torch.inference_mode():
            context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        return Conditioning(context.float().cpu().clone(), pooled.float().cpu().clone())

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the T5 tokens of ``word``; EraseError when it is not there."""
        return token_mask(self.tokenizer, prompt, word, self.length)


HOST = Host(FAMILY, owns, sizes, tree, Text, shift)
HOSTS = (HOST,)
