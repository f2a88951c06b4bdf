"""An eraser on the forward side of a MODEL: a strength of its own for every picture of a batch.

The host patches weights, which all pictures share. Here hooks on the layers add the change to what
they give, for as long as a ``with`` lasts; the weights, whatever holds them, stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.lora
import comfy.lora_convert
import torch
import torch.nn.functional as F
from torch import Tensor

from ..erase_core.errors import EraseError


class Change(NamedTuple):
    """What is added to ``rows`` of a layer's output: ``up (down x)``, ``up x`` without a ``down``,
    ``up`` itself for a bias."""

    rows: slice
    up: Tensor
    down: Tensor | None = None
    bias: bool = False

    def to(self, like: Tensor) -> Change:
        """The same where and as it is computed."""
        down = None if self.down is None else self.down.to(like.device)
        return self._replace(up=self.up.to(like.device), down=down)

    def __call__(self, x: Tensor) -> Tensor:
        """The change for a layer's input, float32."""
        if self.bias:
            return self.up
        return F.linear(x if self.down is None else F.linear(x, self.down), self.up)


class ForwardSide:
    """An eraser's changes by the names of a MODEL's layers.

    EraseError when the file changes nothing of this MODEL, or in a way that has no forward side.
    """

    def __init__(self, model: Any, tensors: Mapping[str, Tensor]) -> None:
        known = comfy.lora.model_lora_keys_unet(model.model, {})
        loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(tensors)), known)
        self.changes: dict[str, list[Change]] = defaultdict(list)
        for key, patch in loaded.items():
            name, offset = (key, None) if isinstance(key, str) else (key[0], key[1])
            module, _, kind = name.rpartition(".")
            if offset is not None and offset[0] != 0:
                raise _unfit()
            rows = slice(None) if offset is None else slice(offset[1], offset[1] + offset[2])
            self.changes[module].append(_change(patch, rows, kind == "bias"))
        if not self.changes:
            raise EraseError("This eraser changes nothing of this MODEL; choose one made for it.")

    @contextmanager
    def applied(self, model: Any, strength: Tensor) -> Iterator[None]:
        """``strength`` (B,) times the changes; a model's pass may hold each picture several times,
        one after another, as with a negative prompt."""
        handles = [
            model.get_submodule(name).register_forward_hook(self._hook(name, strength))
            for name in self.changes
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, strength: Tensor) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].float()
            if len(output) % len(strength):
                raise EraseError(f"This MODEL's {name} knows no pictures; the gate cannot hold it.")
            rows = strength.to(output.device, torch.float32).repeat(len(output) // len(strength))
            rows = rows.view(-1, *[1] * (output.ndim - 1))
            changed = output.clone()
            for change in self.changes[name]:
                part = changed[..., change.rows]
                moved = (part.float() + rows * change.to(output)(x)).to(output.dtype)
                changed[..., change.rows] = torch.where(rows == 0, part, moved)
            return changed

        return hook


def _change(patch: Any, rows: slice, bias: bool) -> Change:
    """A patch of the host's as a change, its scale baked in."""
    if isinstance(patch, tuple) and patch[0] == "diff" and patch[1][0].ndim < 3:
        return Change(rows, patch[1][0].float(), bias=bias)
    if getattr(patch, "name", "") != "lora":
        raise _unfit()
    up, down, alpha, *more = patch.weights
    if up.ndim != 2 or any(part is not None for part in more):
        raise _unfit()
    scale = 1.0 if alpha is None else float(alpha) / len(down)
    return Change(rows, scale * up.float(), down.float())


def _unfit() -> EraseError:
    return EraseError(
        "A gate takes LoRAs and weight edits on Linear layers; this file holds something else."
    )
