"""Linear layers that get no gradient of their own: narrow weights, widened at every use.

Autograd would keep the widened weight of every layer until the backward pass, and with it a model
of twice the size. Here nothing is kept: the weight is asked for again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EraseError

_QUANTISATION = ("scale_weight", "weight_scale", "scale_input", "input_scale", "comfy_quant")
FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max


class FrozenLinear(nn.Linear):
    """A Linear without gradients for its weight, which may be fp8: times ``scale``, it is widened
    to the input's dtype, on the input's device, whenever it is used."""

    scale: float = 1.0

    def forward(self, input: Tensor) -> Tensor:
        return _Frozen.apply(input, self)

    def held(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as they are kept."""
        return self.weight, self.bias

    def used(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as they are used with inputs like ``x``."""
        weight, bias = self.held()
        weight = weight.to(x.device)  # before it is widened: fewer bytes cross the bus
        if self.scale == 1.0:
            return weight.to(x.dtype), bias
        return weight.to(x.dtype, copy=True).mul_(self.scale), bias


def like(linear: nn.Linear, kind: type[FrozenLinear] = FrozenLinear) -> FrozenLinear:
    """A layer of another kind in a Linear's place, still without storage."""
    bias = linear.bias is not None
    made = kind(linear.in_features, linear.out_features, bias, device="meta")
    made.scale = getattr(linear, "scale", 1.0)
    return made


class _Frozen(torch.autograd.Function):
    """``x W^T + b``, whose backward pass asks the layer for W instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, *layer.used(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.used(grad)[0], None


def unscale(
    file: str, state: dict[str, Tensor], advice: str
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A state without its quantisation's keys, and the scales of scaled modules.

    Raises
    ------
    EraseError
        With ``advice``, when ``file`` has integers for weights, or scales by block.
    """
    plain: dict[str, Tensor] = {}
    scales: dict[str, float] = {}
    for key, tensor in state.items():
        module, _, end = key.rpartition(".")
        if end in _QUANTISATION or key == "scaled_fp8":
            continue
        plain[key] = tensor
        if end != "weight":
            continue
        scale = state.get(f"{module}.scale_weight", state.get(f"{module}.weight_scale"))
        if not tensor.is_floating_point() or (scale is not None and scale.numel() != 1):
            raise EraseError(f"{file} is quantised in a way that is unknown here; {advice}.")
        if scale is not None:
            scales[module] = float(scale)
    return plain, scales


def to_fp8(weight: Tensor) -> tuple[Tensor, float]:
    """A weight as fp8 (e4m3) and the scale it was divided by, which spreads it over fp8's range."""
    if weight.itemsize == 1:
        return weight, 1.0
    scale = max(float(weight.abs().max()), 1e-12) / FP8_MAX
    return (weight.float() / scale).to(FP8), scale


def put(tree: nn.Module, name: str, module: nn.Module) -> None:
    """Set ``module``, without gradients, in the place of the tree's submodule ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(tree.get_submodule(parent), child, module.requires_grad_(False))
