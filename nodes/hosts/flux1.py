"""FLUX.1 in the host: its transformer as a tree that can be trained through, its text encoders."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...erase_core.errors import EraseError
from ...erase_core.models.base import Conditioning, linear_flop
from ...erase_core.models.flux1 import FAMILY
from ...erase_core.models.flux1.config import FluxConfig
from ...erase_core.models.flux1.names import skeleton
from ...erase_core.models.flux1.tree import Flux
from ...erase_core.models.tokens import token_mask
from .base import Host, base_name

ADVICE = "connect a FLUX.1-dev or FLUX.1-schnell text-to-image model"
CLIP_LENGTH = 77
_OFFLOADABLE = "offloadable" in inspect.signature(comfy.ops.cast_bias_weight).parameters


def owns(model: Any) -> bool:
    """Whether a MODEL is a FLUX.1. The host's own subclasses of its Flux (FLUX.2, Chroma, ...) are
    other families; those of node packs are loaders of their own."""
    kind = type(model.model)
    own = kind.__module__ != comfy.model_base.__name__ or kind is comfy.model_base.Flux
    return issubclass(kind, comfy.model_base.Flux) and own


def sizes(model: Any) -> FluxConfig:
    """The sizes of a FLUX.1 MODEL; EraseError unless it turns a prompt into a picture."""
    inner = model.model
    blocks = getattr(inner.diffusion_model, "double_blocks", None)
    if blocks is None:
        raise EraseError(f"This MODEL hides its blocks (Nunchaku or the like); {ADVICE}.")
    weight = blocks[0].img_attn.qkv.weight  # img_in stays as it was in such files
    if weight is None or not weight.is_floating_point():
        raise EraseError(f"This MODEL has integer weights (GGUF or the like); {ADVICE}.")
    config = FluxConfig.from_tree(inner.diffusion_model)
    if config.in_channels != 64:
        raise EraseError(f"This MODEL takes more than a prompt (Fill, Depth or Canny); {ADVICE}.")
    if "kontext" in base_name(model).lower():
        raise EraseError(f"This MODEL is FLUX.1 Kontext, which edits pictures; {ADVICE}.")
    return config


def tree(model: Any, config: FluxConfig) -> Flux:
    """A Flux with the core's names that computes with the MODEL's own layers and can be trained on.

    EraseError when it computes in float16: Flux's residuals are beyond its range, which the host's
    own forward clips, and gradients of the losses below it.
    """
    frame = skeleton(config)
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    if dtype == torch.float16:
        raise EraseError(
            "On this card ComfyUI computes in float16, in which a Flux model cannot be trained; "
            "start ComfyUI with --bf16-unet, or with --fp32-unet."
        )
    inner = model.model.diffusion_model
    for name, module in list(frame.named_modules()):
        if isinstance(module, nn.Linear | nn.RMSNorm):
            wrapper = _Linear if isinstance(module, nn.Linear) else _Norm
            parent, _, child = name.rpartition(".")
            setattr(frame.get_submodule(parent), child, wrapper(inner.get_submodule(name)))
    frame.compute_device = model.load_device
    frame.compute_dtype = dtype
    return frame


def shift(model: Any) -> float | None:
    """The shift of the MODEL's noise schedule: FLUX.1-dev's mu; None for schnell, without one."""
    sampling = model.get_model_object("model_sampling")
    flux = isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
    return float(sampling.shift) if flux else None


class _Linear(nn.Module):
    """A Linear of the host's that hands gradients to its input and wants none itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)  # in a tuple: its weights are not this tree's

    @property
    def weight(self) -> nn.Parameter:
        """A float32 copy (out, in) of what the host computes with, for methods that solve."""
        like = torch.empty(0, device=comfy.model_management.get_torch_device())
        with torch.no_grad(), _weight(self._inner[0], like) as held:
            return nn.Parameter(held.detach().float().clone(), requires_grad=False)

    @property
    def bias(self) -> Tensor | None:
        """The host's, as it is kept."""
        bias = self._inner[0].bias
        assert not isinstance(bias, nn.Module)
        return bias

    def forward(self, x: Tensor) -> Tensor:
        return _Frozen.apply(x, self._inner[0])


class _Frozen(torch.autograd.Function):
    """``module(x)`` without keeping a weight: it is asked for again in the backward pass.

    Autograd would keep the tensor that the host computed with. That may be an inference tensor,
    which it refuses, or a view of a buffer that holds another layer's weight by then.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any) -> Tensor:
        ctx.module = module
        weight = getattr(module, "weight", None)
        narrow = weight is not None and weight.dtype.itemsize == 1
        return module(x.clone() if narrow else x)  # the host's fp8 product clamps its input

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        with _weight(ctx.module, grad) as weight:
            return grad @ weight, None


class _Norm(nn.Module):
    """An RMS norm of the host's with a copy of its weight for autograd to keep (128 numbers)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self._inner[0]
        if hasattr(inner, "scale"):  # ComfyUI until autumn 2025
            return F.rms_norm(x, x.shape[-1:], inner.scale.to(x, copy=True), 1e-6)
        with torch.no_grad(), _weight(inner, x) as held:
            weight = held.clone()
        return F.rms_norm(x, x.shape[-1:], weight, inner.eps)


@contextmanager
def _weight(module: Any, like: Tensor) -> Iterator[Tensor]:
    """The weight that a host's layer computes with, on the device and in the dtype of ``like``."""
    if not _OFFLOADABLE:
        yield _plain(module, comfy.ops.cast_bias_weight(module, like)[0])
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        yield _plain(module, weight)
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _plain(module: Any, weight: Tensor) -> Tensor:
    """The numbers that a quantised weight stands for."""
    if type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()
    scale = getattr(module, "scale_weight", None)  # scaled fp8 in ComfyUI until autumn 2025
    return weight if scale is None else weight * scale.to(weight)


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
        tokens = self.clip.tokenize(prompt.replace("(", r"\(").replace(")", r"\)"))
        if len(tokens["t5xxl"]) > 1 or len(tokens["t5xxl"][0]) > self.length:
            raise EraseError(
                f'The prompt "{prompt[:60]}..." is longer than {self.length} T5 tokens; shorten it.'
            )
        with torch.inference_mode():
            context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        return Conditioning(context.float().cpu().clone(), pooled.float().cpu().clone())

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the T5 tokens of ``word``; EraseError when it is not there."""
        return token_mask(self.tokenizer, prompt, word, self.length)


HOST = Host(FAMILY, owns, sizes, tree, Text, shift)
HOSTS = (HOST,)
