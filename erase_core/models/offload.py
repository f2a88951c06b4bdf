"""Where a tree's weights are kept while it computes: as fp8, and blocks in host memory.

Blocks that are away are brought to the device one after another, each for its forward and again for
its backward pass. The next one comes on a second stream while one computes. Nothing of this changes
a number but fp8, which rounds the base's matrices.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .frozen import FrozenLinear, like, put, to_fp8

ALIGNMENT = 256  # bytes between tensors of a parcel start at multiples of this
PIECE = 2**30  # bytes of host memory that are pinned at once


@dataclass(frozen=True)
class Placement:
    """Matrices of the blocks as ``fp8`` or as they are in the file; ``away`` blocks, spread evenly,
    in host memory."""

    fp8: bool = False
    away: int = 0

    def __str__(self) -> str:
        parts = ["the base in fp8"] * self.fp8
        parts += [f"{self.away} of its blocks in main memory"] * bool(self.away)
        return ", ".join(parts) or "the base as it is"


def place(
    tree: nn.Module, blocks: Sequence[str], device: torch.device, placement: Placement
) -> None:
    """Bring a tree to where it computes, tensor after tensor, so that no second copy ever exists.

    ``blocks`` are a family's lists of blocks. Trees whose blocks are away say so by
    ``compute_device``.
    """
    parcels: list[Parcel] = []
    names = block_names(tree, blocks)
    away = spread(len(names), placement.away)
    shelf = _Shelf(pinned=device.type == "cuda")
    for index, name in enumerate(names):
        block = tree.get_submodule(name)
        if placement.fp8:
            _shrink(block, device)
        if index in away:
            parcels.append(Parcel(block, shelf, len(away) - len(parcels)))
        else:
            block.to(device)
    belt = Belt(parcels, device) if parcels else None
    for index, parcel in enumerate(parcels):
        assert belt is not None
        parcel.hand_over(belt, index)
    for own in tree.parameters(recurse=False):
        own.data = own.data.to(device)
    for child in tree.children():
        if not isinstance(child, nn.ModuleList):
            child.to(device)
    tree.compute_device = device  # type: ignore[assignment]


def block_names(tree: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Every block of the lists ``blocks``, in the order of a forward pass."""
    return [
        f"{kind}.{index}"
        for kind in blocks
        for index, _ in enumerate(tree.get_submodule(kind).children())
    ]


def spread(total: int, count: int) -> set[int]:
    """``count`` of ``total`` indices, evenly apart, so that each has time to arrive."""
    return {index * total // count for index in range(count)}


class Weights(NamedTuple):
    """Bytes on the device: what is always there, and a matrix of fp8 while it is widened; and those
    of the blocks in host memory."""

    held: int
    widened: int = 0
    away: int = 0


def device_bytes(tree: nn.Module, lists: Sequence[str], placement: Placement) -> Weights:
    """Bytes of a tree that :func:`place` will have placed, two slots for the blocks on their way
    among them."""
    blocks = [tree.get_submodule(name) for name in block_names(tree, lists)]
    outside = _bytes(tree) - sum(_bytes(block) for block in blocks)
    sizes = [_bytes(block, placement.fp8) for block in blocks]
    away = [sizes[index] for index in spread(len(sizes), placement.away)]
    slots = 2 * max(away, default=0)
    held = outside + sum(sizes) - sum(away) + slots
    return Weights(held, _widened(blocks, placement.fp8), sum(away))


def _widened(blocks: list[nn.Module], fp8: bool) -> int:
    """Bytes of the largest fp8 matrix while it has 16 bits."""
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    return 2 * max((m.numel() for m in matrices if fp8 or m.itemsize == 1), default=0)


def _bytes(module: nn.Module, fp8: bool = False) -> int:
    return sum(p.numel() * (1 if fp8 and p.ndim == 2 else p.itemsize) for p in module.parameters())


def _linears(block: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}


def _shrink(block: nn.Module, device: torch.device) -> None:
    """Make a block's matrices fp8, on the device; those that are it already stay as they are."""
    for name, linear in _linears(block).items():
        if linear.weight.itemsize > 1:
            small = like(linear)
            weight, small.scale = to_fp8(linear.weight.to(device))
            small.weight, small.bias = nn.Parameter(weight, requires_grad=False), linear.bias
            put(block, name, small)


class _Shelf:
    """Host memory for parcels. Torch rounds pinned memory up to powers of two, so that parcels
    share pieces of PIECE bytes; where none is left they are not pinned, and a warning says so."""

    def __init__(self, pinned: bool) -> None:
        self.pinned = pinned
        self.room = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int, parcels: int) -> Tensor:
        """Room for a parcel of ``size`` bytes, the first of as many that are still to come."""
        if size > len(self.room):
            self.room = self._allocate(max(size, min(PIECE, size * parcels)))
        taken, self.room = self.room[:size], self.room[size:]
        return taken

    def _allocate(self, size: int) -> Tensor:
        if self.pinned:
            try:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:  # systems pin a part of their memory at most
                self.pinned = False
                warnings.warn(
                    "The system pins no more memory, so that blocks come to the device more "
                    f"slowly; close other programs for full speed ({error}).",
                    stacklevel=2,
                )
        return torch.empty(size, dtype=torch.uint8)


class Parcel:
    """The Linears of one block, packed into one piece of host memory that travels in one go;
    ``parcels`` are still to come, this one among them."""

    def __init__(self, block: nn.Module, shelf: _Shelf, parcels: int) -> None:
        self.block = block
        self.places: dict[str, tuple[int, torch.dtype, torch.Size]] = {}
        size = 0
        linears = _linears(block)
        for name, linear in linears.items():
            for end, tensor in linear.named_parameters():
                self.places[f"{name}.{end}"] = (size, tensor.dtype, tensor.shape)
                size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.bytes = shelf.take(size, parcels)
        for name, linear in linears.items():
            host = like(linear, HostLinear)
            for end, tensor in linear.named_parameters():
                packed = self.open(self.bytes, f"{name}.{end}")
                packed.copy_(tensor)
                setattr(host, end, nn.Parameter(packed, requires_grad=False))
            put(block, name, host)

    def open(self, buffer: Tensor, name: str) -> Tensor:
        """The tensor called ``name`` in a copy of the parcel."""
        start, dtype, shape = self.places[name]
        end = start + shape.numel() * dtype.itemsize
        return buffer[start:end].view(dtype).view(shape)

    def hand_over(self, belt: Belt, index: int) -> None:
        """Let the block's layers take their weights from ``belt``; the rest goes to its device."""
        for name, layer in _linears(self.block).items():
            assert isinstance(layer, HostLinear)
            layer.source = (belt, index, name)
        for module in self.block.modules():
            if not isinstance(module, nn.Linear):
                for name, parameter in module.named_parameters(recurse=False):
                    setattr(module, name, nn.Parameter(parameter.to(belt.device), False))


class HostLinear(FrozenLinear):
    """A Linear whose weight is in host memory and comes to the device for every use."""

    source: tuple[Belt, int, str]

    def held(self) -> tuple[Tensor, Tensor | None]:
        belt, index, name = self.source
        buffer, parcel = belt.fetch(index), belt.parcels[index]
        bias = None if self.bias is None else parcel.open(buffer, f"{name}.bias")
        return parcel.open(buffer, f"{name}.weight"), bias


class _Slot:
    """Room on the device for one parcel, and the event of its arrival."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds = -1
        self.arrived: Any = None


class Belt:
    """Two slots on the device: one for the parcel in use, one for the next to come.

    Layers must not keep what they fetch: the slot is filled anew two blocks later. On CUDA a second
    stream copies; it waits for what was computed so far, the use of the slot's last parcel
    included, and whoever fetches waits for its arrival.
    """

    def __init__(self, parcels: list[Parcel], device: torch.device) -> None:
        self.parcels, self.device = parcels, device
        size = max(len(parcel.bytes) for parcel in parcels)
        self._slots = (_Slot(size, device), _Slot(size, device))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._at = -1

    def fetch(self, index: int) -> Tensor:
        """The parcel's bytes on the device; the one behind it in the same direction is sent for."""
        slot = self._slot_of(index) or self._send(index, self._slots[0])
        if index != self._at:
            ahead = index + (1 if index > self._at else -1)
            self._at = index
            if 0 <= ahead < len(self.parcels) and self._slot_of(ahead) is None:
                self._send(ahead, self._slots[1 if slot is self._slots[0] else 0])
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.arrived)
        return slot.buffer

    def _slot_of(self, index: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds == index), None)

    def _send(self, index: int, slot: _Slot) -> _Slot:
        parcel, slot.holds = self.parcels[index].bytes, index
        room = slot.buffer[: len(parcel)]
        if self._stream is None:
            room.copy_(parcel)
            return slot
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            room.copy_(parcel, non_blocking=True)
            slot.arrived = self._stream.record_event()
        return slot
