"""The eraser: a LoRA under diffusers' names that acts on a tree with names of its own.

PEFT makes and initialises the adapters on a skeleton whose Linear modules have diffusers' names and
no storage; :class:`EraserLora` adds their products to the rows that those Linears occupy in the
tree's layers, which may be fused. The tree itself is never touched.
"""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from ..errors import EraseError
from ..models.base import Slot
from ..tensors import read_tensors, refuse_unfinite, save_tensors

FILE_PREFIX = "transformer."  # diffusers' name for the part of the pipeline that the LoRA changes
PEFT_PREFIX = "base_model.model."
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"


class _Adapter(NamedTuple):
    """One low-rank change ``up @ down`` to the output ``rows`` of a Linear of the tree."""

    rows: slice
    down: nn.Parameter
    up: nn.Parameter


class EraserLora:
    """Low-rank changes to named Linear modules; a
    :class:`~erase_core.models.base.Adapter`.

    Parameters are float32 whatever the base's dtype. Make one with :meth:`create` or :meth:`load`.
    """

    def __init__(
        self, slots: Mapping[str, Slot], ranks: Mapping[str, int], scale: float, seed: int
    ) -> None:
        self.slots = dict(slots)
        self.factor = scale  # alpha / rank, times the strength: multiplies every change
        config = LoraConfig(
            target_modules=list(slots),
            rank_pattern={re.escape(name): rank for name, rank in ranks.items()},
            alpha_pattern={re.escape(name): scale * rank for name, rank in ranks.items()},
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # CUDA's generators stay as they are
            self._peft = get_peft_model(bare_modules(slots), config)
        self._adapters = self._by_module()

    @classmethod
    def create(
        cls,
        slots: Mapping[str, Slot],
        rank: int = 8,
        alpha: float | None = None,
        seed: int = 0,
    ) -> EraserLora:
        """A fresh LoRA that changes nothing yet (B = 0), equal for equal seeds.

        ``slots`` are the Linears that it changes, as :meth:`.Model.slots` finds them by their
        roles; ``alpha`` None means ``alpha = rank``. The global random state is left as it was.
        """
        scale = 1.0 if alpha is None else alpha / rank
        return cls(slots, dict.fromkeys(slots, rank), scale, seed)

    @classmethod
    def load(cls, path: Path | str, linears: Mapping[str, Slot]) -> EraserLora:
        """Read a LoRA file with diffusers' names, for a base that has these ``linears``.

        ``.alpha`` tensors are honoured (scale = alpha / rank, 1 when absent).

        Raises
        ------
        EraseError
            When the file is missing, holds other names, or was made for another size.
        """
        return cls.from_tensors(read_tensors(path)[0], linears, str(path))

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], linears: Mapping[str, Slot], origin: str = "The LoRA"
    ) -> EraserLora:
        """As :meth:`load`, from tensors under a file's names; ``origin`` is named in errors."""
        state = bake(tensors, origin)
        names = [key.removesuffix(DOWN) for key in state if key.endswith(DOWN)]
        slots = {name: linears[name] for name in names if name in linears}
        ranks = {name: len(state[name + DOWN]) for name in slots}
        wanted = {
            key: shape
            for name, slot in slots.items()
            for key, shape in (
                (name + DOWN, (ranks[name], slot.in_features)),
                (name + UP, (slot.out_features, ranks[name])),
            )
        }
        if not slots or wanted != {key: tuple(tensor.shape) for key, tensor in state.items()}:
            raise EraseError(
                f"{origin} does not fit this base model; choose a LoRA with diffusers' names "
                "(transformer....lora_A.weight) that was made for it."
            )
        lora = cls(slots, ranks, 1.0, seed=0)
        lora.load_state(state)
        return lora

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus the change at module ``name`` for its input ``x``, in ``y``'s dtype."""
        adapters = self._adapters.get(name)
        if not adapters:
            return y
        x = x.float()
        parts, end = [], 0
        for adapter in adapters:
            delta = F.linear(F.linear(x, adapter.down), adapter.up)
            changed = y[..., adapter.rows] + delta * self.factor
            parts += [y[..., end : adapter.rows.start], changed.to(y.dtype)]
            end = adapter.rows.stop
        return torch.cat([*parts, y[..., end:]], dim=-1)

    def parameters(self) -> list[nn.Parameter]:
        """The trainable float32 parameters, in a fixed order."""
        return [p for p in self._peft.parameters() if p.requires_grad]

    def to(self, device: torch.device | str) -> EraserLora:
        """Move the parameters (in place) and return self; make optimisers afterwards."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(device)
        return self

    def scaled(self, strength: float) -> EraserLora:
        """The same parameters acting with ``strength`` times the change, for generation."""
        twin = copy.copy(self)
        twin.factor = self.factor * strength
        return twin

    def state(self) -> dict[str, Tensor]:
        """Detached A and B under diffusers' names without prefix, the scale not yet applied."""
        state = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        return {key.removeprefix(PEFT_PREFIX): value.detach() for key, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors as :meth:`state` names them into the parameters."""
        named = {PEFT_PREFIX + key: value for key, value in state.items()}
        set_peft_model_state_dict(self._peft, named)

    def begin_with(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over the change of a LoRA of the same Linears, from tensors under a file's names.

        A LoRA of fewer directions becomes the first of these; the others stay fresh and change
        nothing. EraseError, naming ``origin``, when it has more, or changes other Linears.
        """
        other, own = bake(tensors, origin), self.state()
        names = {key.removesuffix(DOWN) for key in other if key.endswith(DOWN)}
        if names != self.slots.keys():
            raise EraseError(f"{origin} changes other layers; choose its preset, or its targets.")
        for name in names:
            down, up = own[name + DOWN], own[name + UP]
            old_down, old_up = other[name + DOWN], other[name + UP][: len(up)]
            rank = len(old_down)
            if rank > len(down):
                raise EraseError(f"{origin} has rank {rank}; set rank to {rank} or more.")
            if old_down.shape[1:] != down.shape[1:] or len(old_up) != len(up):
                raise EraseError(f"{origin} was made for another size of model.")
            down[:rank] = old_down
            up.zero_()[:, :rank] = old_up / self.factor

    def tensors(self) -> dict[str, Tensor]:
        """What the LoRA file holds: the ``transformer.`` names, scale and strength baked into B."""
        return {
            FILE_PREFIX + key: self._filed(key, value) if key.endswith(UP) else value.clone()
            for key, value in self.state().items()
        }

    def _filed(self, key: str, up: Tensor) -> Tensor:
        """B as the file has it: with zeros for the rows that the eraser leaves alone."""
        missing = max(0, self.slots[key.removesuffix(UP)].whole - len(up))
        return F.pad(up * self.factor, (0, 0, 0, missing))

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the LoRA file that ComfyUI and diffusers load, whole or not at all."""
        save_tensors(path, self.tensors(), metadata)

    def merged(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with the changes added to its weights; ``state`` stays as it is."""
        merged = dict(state)
        for module, adapters in self._adapters.items():
            weight = state[f"{module}.weight"].float().clone()
            for rows, down, up in adapters:
                weight[rows] += (up.detach() @ down.detach()).to(weight) * self.factor
            merged[f"{module}.weight"] = weight.to(state[f"{module}.weight"].dtype)
        return merged

    def _by_module(self) -> dict[str, list[_Adapter]]:
        """Module name -> its adapters in the order of their rows."""
        found = defaultdict(list)
        for name, slot in self.slots.items():
            layer: Any = self._peft.get_submodule(PEFT_PREFIX + name)
            down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            found[slot.module].append(_Adapter(slot.rows, down, up))
        return {module: sorted(a, key=lambda x: x.rows.start) for module, a in found.items()}


def change_norms(tensors: Mapping[str, Tensor], origin: str = "The LoRA") -> dict[str, float]:
    """Frobenius norm of every ``B @ A`` in a LoRA file's tensors, by diffusers name.

    Needs neither the base nor the products: ``|B A|^2 = trace((B^T B) (A A^T))``.
    """
    norms = {}
    for name, down, up in _pairs(bake(tensors, origin)):
        square = ((up.T @ up) * (down @ down.T)).sum().item()
        norms[name] = math.sqrt(max(square, 0.0))
    return norms


def _pairs(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    names = [key.removesuffix(DOWN) for key in state if key.endswith(DOWN)]
    return [(n, state[n + DOWN].double(), state[n + UP].double()) for n in names]


def bake(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A and B in float32 without the ``transformer.`` prefix, ``.alpha`` multiplied into B.

    Every LoRA passes here, whoever made it. EraseError, naming ``origin``, for other names, shapes
    that are no LoRA's, NaN and infinity.
    """
    plain = {key.removeprefix(FILE_PREFIX): tensor for key, tensor in tensors.items()}
    if len(plain) < len(tensors):
        raise EraseError(f"{origin} names a tensor twice, with {FILE_PREFIX} and without it.")
    check_pairs(plain, origin)
    state = {k: t.float() for k, t in plain.items() if k.endswith((DOWN, UP))}
    for key, tensor in plain.items():
        if key.endswith(ALPHA):
            name = key.removesuffix(ALPHA)
            state[name + UP] = state[name + UP] * (tensor.item() / len(state[name + DOWN]))
    refuse_unfinite(state, origin)  # alpha among it: finite by itself, it may be too much for B
    return state


def check_pairs(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse what is no LoRA with diffusers' names, as its names and shapes tell.

    Raises
    ------
    EraseError
        For a foreign name, A without B, an alpha alone or of several values, and matrices that
        cannot be multiplied.
    """
    for key, tensor in tensors.items():
        name = next((key.removesuffix(end) for end in (DOWN, UP, ALPHA) if key.endswith(end)), None)
        if name is None:
            raise EraseError(
                f"{origin} holds {key}, which is no part of a LoRA with diffusers' names; "
                "choose a file whose keys read transformer....lora_A.weight."
            )
        down, up = tensors.get(name + DOWN), tensors.get(name + UP)
        if down is None or up is None:
            lacks = DOWN if down is None else UP
            raise EraseError(f"{origin} lacks {name}{lacks}; download or make it again.")
        matrices = down.ndim == 2 == up.ndim and 0 < len(down) == up.shape[1]
        if not matrices or not tensor.is_floating_point():
            shapes = f"{list(down.shape)} and {list(up.shape)} ({tensor.dtype})"
            raise EraseError(f"{origin} holds no matrices of one rank at {name}: {shapes}.")
        if key.endswith(ALPHA) and tensor.numel() != 1:
            raise EraseError(f"{origin} holds {tensor.numel()} values in {key}; alpha is one.")


def bare_modules(slots: Mapping[str, Slot]) -> nn.Module:
    """Modules with diffusers' names; each Linear's weight is one expanded zero (no storage).

    On the meta device PEFT would make the adapters meta too.
    """
    root = nn.Module()
    for name, slot in slots.items():
        *path, leaf = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        linear = nn.Linear(slot.in_features, slot.out_features, bias=False, device="meta")
        empty = torch.zeros(()).expand(slot.out_features, slot.in_features)
        linear.weight = nn.Parameter(empty, requires_grad=False)
        parent.add_module(leaf, linear)
    return root
