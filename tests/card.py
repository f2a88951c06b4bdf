"""A card where there is none: PyTorch's meta device, as strict as a card about where things are.

What computes there has shapes and no numbers, so that whatever comes back is zeros. What a card
would refuse fails here, too: operands on two devices, a generator of the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default, aten._foreach_copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


class Card(TorchDispatchMode):
    """While it is on, "meta" behaves as a card; ``calls`` counts what ran there."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return args[0].dtype == torch.bool or torch.zeros((), dtype=args[0].dtype).item()
        if func is aten.equal.default and args[0].is_meta:
            return True
        if func is aten._to_copy.default and args[0].is_meta and _away(kwargs.get("device")):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is aten.copy_.default and args[1].is_meta and not args[0].is_meta:
            return args[0].zero_()
        if func not in MOVES:
            self._refuse(func, args, kwargs)
        return func(*args, **kwargs)

    def _refuse(self, func: Any, args: Any, kwargs: Any) -> None:
        on_card = func in INDEXED and args[0].is_meta
        given = (args[0], *args[2:]) if on_card else args  # its indices may be in main memory
        tensors = [t for t in tree_leaves((given, kwargs)) if isinstance(t, Tensor)]
        devices = {t.device.type for t in tensors if t.ndim}  # numbers may be anywhere
        devices |= {"meta"} if str(kwargs.get("device")) == "meta" else set()
        if "meta" in devices:
            self.calls += 1
            generator = kwargs.get("generator")
            if len(devices) > 1 or generator is not None:
                raise RuntimeError(f"{func} meets {devices} and generator {generator}")


def _away(device: Any) -> bool:
    return device is not None and torch.device(device).type != "meta"


@contextmanager
def card() -> Iterator[Card]:
    """The card, and parameters whose data may be sent there, which PyTorch keeps from meta."""
    plain: Any = torch._C.TensorBase.data

    def send(tensor: Tensor, value: Tensor) -> None:
        if tensor.device == value.device:
            plain.__set__(tensor, value)
        else:
            torch.utils.swap_tensors(tensor, nn.Parameter(value, tensor.requires_grad))

    with Card() as mode, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "data", property(plain.__get__, send), raising=False)
        yield mode
