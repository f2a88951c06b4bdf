"""What families share here: a host's layers as those of a tree that can be trained through."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...erase_core.errors import EraseError
from ...erase_core.models.tokens import read_tokenizer

_OFFLOADABLE = "offloadable" in inspect.signature(comfy.ops.cast_bias_weight).parameters
Tree = TypeVar("Tree", bound=nn.Module)


def check_blocks(model: Any, advice: str, first: str = "double_blocks.0.img_attn.qkv") -> None:
    """Refuse a MODEL whose blocks are not to be seen, or with integers for weights, by its Linear
    ``first``."""
    try:
        module: Any = model.model.diffusion_model.get_submodule(first)
        weight: Any = module.weight
    except AttributeError as error:
        raise EraseError(
            f"This MODEL hides its blocks (Nunchaku or the like); {advice}."
        ) from error
    if weight is None or not (weight.is_floating_point() or _own_way(module)):
        raise EraseError(f"This MODEL has integer weights of an unknown kind; {advice}.")


def filled(frame: Tree, model: Any) -> Tree:
    """A tree without storage that now computes with the MODEL's own layers of the same names, and
    can be trained through.

    EraseError when it computes in float16: residuals are beyond its range, which the host's own
    forward clips, and gradients of the losses below it.
    """
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    if dtype == torch.float16:
        raise EraseError(
            "On this card ComfyUI computes in float16, in which this MODEL cannot be trained; "
            "start ComfyUI with --bf16-unet, or with --fp32-unet."
        )
    inner = model.model.diffusion_model
    for name, module in list(frame.named_modules()):
        wrapper = _WRAPPERS.get(type(module))
        if wrapper is not None:
            parent, _, child = name.rpartition(".")
            setattr(frame.get_submodule(parent), child, wrapper(inner.get_submodule(name)))
    frame.compute_device = model.load_device
    frame.compute_dtype = dtype
    return frame


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
        if not hasattr(inner, "bias"):  # a norm that the host keeps where it computes
            weight = inner.weight.to(x, copy=True)
        else:
            with torch.no_grad(), _weight(inner, x) as held:
                weight = held.clone()
        return F.rms_norm(x, x.shape[-1:], weight, inner.eps)


class _Entry(nn.Module):
    """A convolution of the host's that reads latents, to which no gradient goes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self._inner[0](x)


_WRAPPERS = {nn.Linear: _Linear, nn.RMSNorm: _Norm, nn.Conv2d: _Entry}


@contextmanager
def _weight(module: Any, like: Tensor) -> Iterator[Tensor]:
    """The weight that a host's layer computes with, on the device and in the dtype of ``like``."""
    if _own_way(module):
        yield module.cast_bias_weight(like)[0]
        return
    if not _OFFLOADABLE:
        yield _plain(module, comfy.ops.cast_bias_weight(module, like)[0])
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        yield _plain(module, weight)
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _own_way(module: Any) -> bool:
    """Whether a layer unpacks its weight itself, as those of ComfyUI-GGUF do."""
    return hasattr(module, "cast_bias_weight")


def _plain(module: Any, weight: Tensor) -> Tensor:
    """The numbers that a quantised weight stands for."""
    if type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()
    scale = getattr(module, "scale_weight", None)  # scaled fp8 in ComfyUI until autumn 2025
    return weight if scale is None else weight * scale.to(weight)


def fast(tokenizer: Any) -> Any:
    """A tokenizer of the host's that tells where a token stands in its text; those of transformers
    before 5 do not, and are read again."""
    return tokenizer if tokenizer.is_fast else read_tokenizer(Path(tokenizer.name_or_path))


def t5_tokens(clip: Any, prompt: str, length: int) -> Any:
    """What the host's tokenizers make of a prompt as it stands; EraseError when it has more than
    ``length`` tokens for T5."""
    tokens = clip.tokenize(prompt.replace("(", r"\(").replace(")", r"\)"))
    if len(tokens["t5xxl"]) > 1 or len(tokens["t5xxl"][0]) > length:
        raise EraseError(
            f'The prompt "{prompt[:60]}..." is longer than {length} T5 tokens; shorten it.'
        )
    return tokens
