"""What is held in memory while something is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erase_core.methods.eraseanything.levels import Levels
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.offload import HostLinear, Placement, device_bytes, place
from erase_core.training.estimate import peak_bytes

CPU = torch.device("cpu")


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is on, and remembers the most."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._part, storage._cdata)

    def _part(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def slots(tree: nn.Module) -> list[Tensor]:
    """The room on the device for blocks on their way."""
    belts = {m.source[0] for m in tree.modules() if isinstance(m, HostLinear)}
    return [slot.buffer for belt in belts for slot in belt._slots]


def trainer_levels(trainer: Trainer) -> Levels:
    return Levels(
        trainer.model,
        trainer.lora,
        trainer.encode(),
        trainer.settings,
        trainer.blocks,
        trainer.guidance,
    )


def held_in_an_erase_step(trainer: Trainer, placement: Placement) -> tuple[int, int]:
    """Bytes that are predicted beside weights and LoRA, and those that are held."""
    trainer.encode()
    tree, blocks = trainer.model.tree, trainer.model.family.blocks
    weights = device_bytes(tree, blocks, placement)
    said = peak_bytes(trainer.model, trainer.workload(), weights)
    place(tree, blocks, CPU, placement)
    trainer.run()
    states, levels = trainer.states, trainer_levels(trainer)
    assert states is not None
    batch = states.erase.draw(trainer.generator, trainer.settings.batch)
    with Live([*tree.parameters(), *slots(tree)]) as live:
        trainer._descend(trainer.lower, chain(levels.erase(batch), levels.adversarial(batch)))
    # What is widened is among the tensors that were counted, weights and slots are not.
    lora = 4 * sum(p.numel() for p in trainer.lora.parameters())
    return said - weights.held - 6 * lora, live.peak
