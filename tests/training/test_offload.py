"""Blocks in host memory compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tiny import LENGTH, SETTINGS, make_trainer, make_tree, same
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from erase_core.erasers.lora import EraserLora
from erase_core.models import offload
from erase_core.models.base import Conditioning, Probe
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import flux_forward
from erase_core.models.flux1.tree import Flux
from erase_core.models.offload import HostLinear, Placement, device_bytes, place, spread

CPU = torch.device("cpu")
BLOCKS = FAMILY.blocks
DEEP = FluxConfig(
    vec_in_dim=8, context_in_dim=16, hidden_size=128, num_heads=1, depth=3, depth_single_blocks=4
)


def make_deep(dtype: torch.dtype = torch.float32) -> Flux:
    torch.manual_seed(0)
    return Flux(DEEP).to(dtype).requires_grad_(False)


def student(tree: nn.Module, checkpoint: bool) -> dict[str, Tensor]:
    """Velocity, attention and gradients of a LoRA everywhere."""
    g = torch.Generator().manual_seed(1)
    slots = FAMILY.slots(DEEP, ("text.q", "text.k", "single.attention"))
    lora = EraserLora.create(slots, rank=2)
    for parameter in lora.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g) * 0.1
    cond = Conditioning(torch.randn(2, LENGTH, 16, generator=g), torch.randn(2, 8, generator=g))
    words = torch.zeros(2, 1, LENGTH)
    words[..., 3] = 1
    x, probe = torch.randn(2, 16, 4, 6, generator=g), Probe((0, 2), words)
    out = flux_forward(
        tree,
        x,
        torch.tensor([0.3, 0.8]),
        cond,
        3.5,
        eraser=lora,
        probe=probe,
        checkpoint=checkpoint,
    )
    assert out.velocity is not None and out.attention is not None
    loss = out.velocity.square().mean() + out.attention.sum()
    gradients = torch.autograd.grad(loss, lora.parameters())
    named = {f"gradient {i}": gradient for i, gradient in enumerate(gradients)}
    return named | {"velocity": out.velocity.detach(), "attention": out.attention.detach()}


@pytest.mark.parametrize("away", [1, 3, 7])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_in_host_memory_change_no_bit(
    away: int, checkpoint: bool, dtype: torch.dtype
) -> None:
    plain = student(make_deep(dtype), checkpoint)
    tree = make_deep(dtype)
    place(tree, BLOCKS, CPU, Placement(away=away))
    assert len({m.source[1] for m in tree.modules() if isinstance(m, HostLinear)}) == away
    assert same(student(tree, checkpoint), plain)
    assert same(student(tree, checkpoint), plain)  # whatever the slots held


def test_fp8_blocks_in_host_memory_compute_as_fp8_blocks_at_hand() -> None:
    here, away = make_deep(torch.bfloat16), make_deep(torch.bfloat16)
    place(here, BLOCKS, CPU, Placement(fp8=True))
    place(away, BLOCKS, CPU, Placement(fp8=True, away=5))
    small, plain = student(here, True), student(make_deep(torch.bfloat16), True)
    assert same(student(away, True), small)
    difference = (small["velocity"] - plain["velocity"]).norm() / plain["velocity"].norm()
    assert 0 < difference < 0.05
    matrices = [p for n, p in away.named_parameters() if "_blocks." in n and p.ndim == 2]
    assert {p.dtype for p in matrices} == {torch.float8_e4m3fn}


def test_the_next_block_is_under_way_while_one_computes() -> None:
    tree = make_deep()
    place(tree, BLOCKS, CPU, Placement(away=7))
    layer = next(m for m in tree.modules() if isinstance(m, HostLinear))
    belt = layer.source[0]
    sent: list[int] = []
    send = belt._send
    belt._send = lambda index, slot: (sent.append(index), send(index, slot))[1]  # type: ignore
    student(tree, checkpoint=True)
    assert sent[:7] == list(range(7))  # forward: each once, in order
    assert sent[7:] == list(range(4, -1, -1))  # backward: the last two are still there


class LateStream:
    """A second stream whose copies arrive as late as they may: when their event is waited for."""

    def __init__(self) -> None:
        self.copies: list[Callable[[], Any]] = []
        self.arrived = 0
        self.behind = False

    def wait_stream(self, other: Any) -> None:
        self.behind = True  # whatever was computed so far is done, its use of the slot included

    def record_event(self) -> int:
        return len(self.copies)

    def wait_event(self, event: int) -> None:
        """What the computing stream does: everything sent up to ``event`` is there."""
        for copy in self.copies[self.arrived : event]:
            copy()
        self.arrived = max(self.arrived, event)


class Sending(TorchDispatchMode):
    """Puts copies off; one that does not wait for what computes would spoil it."""

    def __init__(self, stream: LateStream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.ops.aten.copy_.default:
            return func(*args, **(kwargs or {}))
        assert self.stream.behind
        self.stream.copies.append(partial(func, *args))
        self.stream.behind = False
        return args[0]


@pytest.mark.parametrize("away", [1, 2, 5, 7])
def test_blocks_may_arrive_late(away: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA way of sending blocks, with streams that are pretended."""
    plain, tree = student(make_deep(), True), make_deep()
    place(tree, BLOCKS, CPU, Placement(away=away))
    stream: Any = LateStream()
    next(m for m in tree.modules() if isinstance(m, HostLinear)).source[0]._stream = stream
    monkeypatch.setattr(torch.cuda, "stream", Sending)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    assert same(student(tree, True), plain)
    assert same(student(tree, True), plain)
    assert len(stream.copies) >= away


def test_a_run_from_host_memory_ends_in_the_same_lora() -> None:
    tree = make_tree()
    place(tree, BLOCKS, CPU, Placement(away=2))
    settings = replace(SETTINGS, l_adv=1.0)
    offloaded = make_trainer(settings, tree=tree).run().eraser.tensors()
    assert same(offloaded, make_trainer(settings).run().eraser.tensors())


def test_parcels_share_pieces_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch rounds pinned memory up to powers of two; all but the last piece are one."""
    tree = make_deep()
    size = device_bytes(tree, BLOCKS, Placement(away=7)).away
    monkeypatch.setattr(offload, "PIECE", 2**22)
    place(tree, BLOCKS, CPU, Placement(away=7))
    parcels = next(m for m in tree.modules() if isinstance(m, HostLinear)).source[0].parcels
    pieces = {p.bytes.untyped_storage().data_ptr(): p.bytes.untyped_storage() for p in parcels}
    assert 1 < len(pieces) < 7
    assert size <= sum(piece.nbytes() for piece in pieces.values()) < 1.5 * size
    assert same(student(tree, False), student(make_deep(), False))


def test_blocks_away_are_spread() -> None:
    assert spread(57, 0) == set()
    assert spread(8, 2) == {0, 4}
    assert spread(7, 7) == set(range(7))


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory can be pinned here")
def test_blocks_wait_in_pageable_memory_where_none_can_be_pinned() -> None:
    shelf = offload._Shelf(pinned=True)
    with pytest.warns(UserWarning, match="pins no more memory"):
        assert shelf.take(300, 2).shape == (300,)
    assert shelf.take(300, 1).shape == (300,) and not shelf.pinned
