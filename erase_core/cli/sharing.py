"""What a command needs to share its work out among processes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models import MINIFLUX
from .numbers import whole

if TYPE_CHECKING:
    from ..processes import Event, Job


def add_workers(parser: Any, default: str) -> None:
    """``--workers``."""
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        metavar="N",
        help=f"processes at once (default: {default})",
    )


def add_ray(parser: Any) -> None:
    """``--ray``."""
    parser.add_argument(
        "--ray",
        default="",
        metavar="auto|ADDRESS",
        help="share out among the machines of a Ray cluster: this machine's, or that at ADDRESS; "
        "all have this package and see the folder",
    )


def share(
    args: argparse.Namespace, job: Job, tasks: Sequence[Any], memory_of: Callable[[Any], int]
) -> Iterator[Event]:
    """Do tasks side by side and tell what happens, here or with ``--ray`` in a cluster, whose cards
    are shared by ``memory_of`` the first task."""
    from .. import cluster, processes

    told = getattr(args, "threads", None)
    if args.ray:
        return cluster.share(job, tasks, args.ray, told or 1, args.workers or 0, memory_of)
    workers, threads = places(args, len(tasks))
    return processes.share(job, tasks, workers, told or threads)


def places(args: argparse.Namespace, tasks: int) -> tuple[int, int]:
    """How many processes work, and on how many threads each."""
    there = cores()
    workers = max(1, min(args.workers or cards(args) or there, tasks))
    return workers, max(1, there // workers)


def plain(args: argparse.Namespace) -> argparse.Namespace:
    """What other processes can be sent of it."""
    told = (item for item in vars(args).items() if item[0] not in ("held", "run"))
    left = {name: _whole(value) for name, value in told}
    if args.model != MINIFLUX:
        left["model"] = str(Path(args.model).absolute())
    return argparse.Namespace(**left)


def _whole(value: Any) -> Any:
    """A path from the root on: processes elsewhere have other working folders."""
    return value.absolute() if isinstance(value, Path) else value


def own_card(args: argparse.Namespace, number: int) -> argparse.Namespace:
    """What process ``number`` computes with: its own card, where there are any."""
    there = cards(args)
    device = f"cuda:{number % there}" if there else args.device
    return argparse.Namespace(**{**vars(args), "device": device})


def cards(args: argparse.Namespace) -> int:
    """Cards that a command may use; 0 where it computes on a CPU."""
    import torch

    return torch.cuda.device_count() if args.device in (None, "cuda") else 0


def cores() -> int:
    """Cores that this process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1
