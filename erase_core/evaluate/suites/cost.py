"""What a piece of work needs at most of memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from ...models.base import tree_device

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Within ``with``: the most memory held on the tree's device, in ``bytes`` afterwards.

    On a GPU what torch allocated; else what the process held, None where only Linux could tell.
    """

    def __init__(self, tree: nn.Module) -> None:
        self.device = tree_device(tree)
        self.bytes: int | None = None

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _RESET.exists():
            _RESET.write_text("5")  # resets VmHWM, see proc(5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        elif _RESET.exists():
            line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
            self.bytes = int(line.split()[1]) * 1024
