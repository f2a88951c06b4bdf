"""What is held in memory while something is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import SETTINGS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erase_core.erasers.lora import EraserLora
from erase_core.methods.eraseanything.levels import Levels
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models import offload
from erase_core.models.base import Conditioning, Model, Probe
from erase_core.models.frozen import FP8
from erase_core.models.offload import HostLinear, Placement, device_bytes, place
from erase_core.training.estimate import peak_bytes
from erase_core.training.memory import USED, ways
from erase_core.training.states import Batch

CPU = torch.device("cpu")
PEAKS = [  # placement, whether activations are recomputed, pixels, other settings
    (Placement(), False, 256, {}),
    (Placement(), False, 512, {}),  # where the probed attention decides
    (Placement(), True, 256, {}),
    (Placement(), True, 512, {}),
    (Placement(), False, 256, {"l_adv": 1.0}),
    (Placement(), True, 256, {"l_adv": 1.0}),
    (Placement(fp8=True, away=2), True, 256, {}),
]


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


def short(checkpointing: bool, pixels: int, **changes: Any) -> TrainSettings:
    """One step of small batches, of square pictures."""
    return replace(
        SETTINGS,
        steps=1,
        height=pixels,
        width=pixels,
        rollout_steps=1,
        erase_rollouts=2,
        keep_rollouts=2,
        activation_checkpointing=checkpointing,
        **changes,
    )


def in_bfloat16(kind: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    """A tree made in bfloat16, for tensors without storage cannot be cast in their modules."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        return kind(config).requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def first_that_fits(trainer: Trainer, gigabytes: float) -> tuple[Placement, bool, int]:
    """The first way that fits a card, or the last; whether it recomputes, and its bytes."""
    tree, blocks = trainer.model.tree, trainer.model.family.blocks
    for placement, on in ways(trainer):
        weights = device_bytes(tree, blocks, placement)
        said = peak_bytes(trainer.model, replace(trainer.workload(), checkpointing=on), weights)
        if said <= USED * gigabytes * 1e9:
            break
    return placement, on, said


def held_without_storage(
    trainer: Trainer,
    placement: Placement,
    checkpointing: bool,
    make: Callable[[], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """Bytes that an erase step holds, taken with the tree that ``make`` gives without storage."""
    prompts, family = trainer.encode(), trainer.model.family
    settings = replace(trainer.settings, activation_checkpointing=checkpointing)
    weights = device_bytes(trainer.model.tree, family.blocks, placement)
    shape = family.latents.shape(settings.height, settings.width)
    rows: Any = SimpleNamespace(tolist=lambda: [0] * settings.batch)
    monkeypatch.setattr(nn.Module, "to", lambda module, *args, **kwargs: module)  # all is here
    monkeypatch.setattr(offload, "to_fp8", lambda weight: (weight.to(FP8), 1.0))  # has no numbers
    with FakeTensorMode(allow_non_fake_inputs=True):
        tree = make()
        place(tree, family.blocks, CPU, placement)
        lora = EraserLora.create(trainer.model.slots(settings.targets), settings.rank)
        state = torch.zeros(settings.batch, *shape)
        batch = Batch(rows, state, torch.zeros(settings.batch), state, state)
        model = replace(trainer.model, tree=tree)
        levels = Levels(model, lora, prompts, settings, trainer.blocks, trainer.guidance)
        with Live([*tree.parameters(), *slots(tree)]) as live:
            for losses in levels.erase(batch):
                torch.stack(list(losses.values())).sum().backward(inputs=lora.parameters())
    learned = 4 * sum(p.numel() for p in trainer.lora.parameters())
    return weights.held + 6 * learned + live.peak


def held_in_drawing(
    model: Model,
    make: Callable[[], nn.Module],
    states: int,
    latents: tuple[int, int, int],
    probed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """The peak of drawing one picture with its negative prompt, in tensors without storage.

    ``make`` builds the tree; ``states`` is the width of a prompt's states, ``latents`` (C, h, w)
    the picture's, ``probed`` how many blocks are looked at.
    """
    monkeypatch.setattr(nn.Module, "to", lambda module, *args, **kwargs: module)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = replace(model, tree=make())
        length = model.text.length
        empty = Conditioning(torch.zeros(1, length, states))
        cond, x = replace(empty, negative=empty), torch.zeros(1, *latents)
        probe = Probe(tuple(range(probed)), torch.zeros(1, 3, length)) if probed else None
        with Live([*model.tree.parameters()]) as live:
            model.predict(x, torch.ones(()), cond, 4.0, probe=probe)
    return live.peak
