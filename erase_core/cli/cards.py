"""``--cards``: processes that train one eraser together, each with a card of its own."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from socket import create_server
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .numbers import whole
from .output import sentence, warn
from .sharing import cards, cores, own_card, plain

if TYPE_CHECKING:
    from ..api import Order


def add_cards(parser: Any) -> None:
    parser.add_argument(
        "--cards",
        type=whole(1, 64),
        default=1,
        metavar="N",
        help="cards that train one eraser together, each on its part of every batch (default 1)",
    )


@contextmanager
def together(args: argparse.Namespace, order: Order) -> Iterator[Order]:
    """The order for a run that shares its work with the processes of ``--cards``, which are started
    here and end with it. On a CPU they share its cores.

    EraseError when there are not as many cards.
    """
    if args.cards == 1:
        yield order
        return
    from ..training.team import Group

    there = cards(args)
    if 0 < there < args.cards:
        raise EraseError(f"There are {there} cards; set --cards to no more.")
    args.threads = args.threads or max(1, cores() // args.cards)
    with create_server(("127.0.0.1", 0)) as found:
        address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
    context, told = get_context("spawn"), (plain(args), order, address)
    others = [
        context.Process(target=_help, args=(rank, *told), daemon=True)
        for rank in range(1, args.cards)
    ]
    try:
        for other in others:
            other.start()
        team = Group(0, args.cards, address)
        try:
            yield replace(order, team=team)
        finally:
            team.leave()
    finally:
        for other in others:
            other.kill()
            other.join()


def _help(rank: int, args: argparse.Namespace, order: Order, address: str) -> None:
    """The life of another process: the same run, of which it writes nothing."""
    from .. import api
    from ..methods.base import Folders
    from ..processes import end_with_parent
    from ..training.team import Group
    from .making import placing
    from .models import open_model

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told, and ends us
    threading.Thread(target=end_with_parent, daemon=True).start()
    team = Group(rank, args.cards, address)
    model = open_model(own_card(args, rank), placed=False)
    own = replace(order, team=team, folders=Folders(resume=order.folders.resume))
    try:
        api.erase(model, own, args.out, place=placing(args), threads=args.threads)
    except EraseError:
        pass  # the first process has met it, too, and says so
    except api.UnfinishedError as error:
        if not isinstance(error.cause, EraseError):
            warn(f"card {rank + 1} of {args.cards}: {sentence(error.cause)}")
