"""What a command needs to share its work out among processes."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .numbers import whole


def add_workers(parser: Any, default: str) -> None:
    """``--workers``."""
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        metavar="N",
        help=f"processes at once (default: {default})",
    )


def places(args: argparse.Namespace, tasks: int) -> tuple[int, int]:
    """How many processes work, and on how many threads each."""
    cores, cards = _cores(), _cards(args)
    workers = max(1, min(args.workers or cards or cores, tasks))
    return workers, max(1, cores // workers)


def plain(args: argparse.Namespace) -> argparse.Namespace:
    """What other processes can be sent of it."""
    left = {name: value for name, value in vars(args).items() if name not in ("held", "run")}
    return argparse.Namespace(**left)


def own_card(args: argparse.Namespace, number: int) -> argparse.Namespace:
    """What process ``number`` computes with: its own card, where there are any."""
    cards = _cards(args)
    device = f"cuda:{number % cards}" if cards else args.device
    return argparse.Namespace(**{**vars(args), "device": device})


def _cards(args: argparse.Namespace) -> int:
    import torch

    return torch.cuda.device_count() if args.device in (None, "cuda") else 0


def _cores() -> int:
    """Cores that this process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1
