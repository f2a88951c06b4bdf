"""Two processes train one eraser together: it is that of one process within rounding."""

from __future__ import annotations

import os
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from host.client import free_port
from tiny import CONCEPTS, SETTINGS, make_trainer, same
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.training.progress import Progress
from erase_core.training.team import Group

WHOLE = replace(SETTINGS, batch=4, erase_rollouts=6, keep_rollouts=9)


def one_of(rank: int, address: str, settings: Any, stop_after: int, pipe: Connection) -> None:
    """What each process does; ``stop_after`` so many iterations the second one dies."""
    torch.set_num_threads(1)
    team = Group(rank, 2, address)

    def on_step(progress: Progress) -> None:
        if rank and stop_after and (progress.phase, progress.step) == ("training", stop_after):
            os._exit(1)

    try:
        trainer = make_trainer(settings, concepts=CONCEPTS, team=team, on_step=on_step)
        result = trainer.run()
    except Exception as error:
        pipe.send(str(error))
        return
    made = result.eraser.tensors()
    states = trainer.states.tensors() if trainer.states else {}
    flat = {f"{part}.{n}": t for part, tensors in states.items() for n, t in tensors.items()}
    plain = [{n: t.float().numpy() for n, t in part.items()} for part in (made, flat)]
    pipe.send((plain[0], result.history, plain[1]))  # torch's own way wants the sender to stay
    team.leave()


def _read(arrays: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def together(settings: Any, stop_after: int = 0) -> list[Any]:
    context, address = get_context("spawn"), f"tcp://127.0.0.1:{free_port()}"
    running = []
    for rank in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=one_of, args=(rank, address, settings, stop_after, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
    told = []
    for process, ours in running:
        try:
            found = ours.recv()
            told.append(
                found if isinstance(found, str) else (_read(found[0]), found[1], _read(found[2]))
            )
        except EOFError:
            told.append(None)
        process.join()
    return told


def test_it_is_the_eraser_of_one_process() -> None:
    trainer = make_trainer(WHOLE)
    alone = trainer.run()
    (first, history, states), (second, other, _) = together(WHOLE)
    assert same(first, second) and history == other
    assert trainer.states is not None
    for part, tensors in trainer.states.tensors().items():
        for name, tensor in tensors.items():  # rolled out by one or the other, bit for bit
            assert torch.equal(states[f"{part}.{name}"], tensor.float()), (part, name)
    for name, tensor in alone.eraser.tensors().items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=2e-5)
    for row, expected in zip(history, alone.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    untrained = make_trainer(WHOLE).lora.tensors()
    moved = sum((alone.eraser.tensors()[n] - untrained[n]).norm() for n in untrained)
    apart = sum((alone.eraser.tensors()[n] - first[n]).norm() for n in untrained)
    assert apart < 0.01 * moved


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    told = together(replace(WHOLE, batch=3))
    assert all("cannot be shared out among 2 cards; set batch" in said for said in told)


def test_who_is_left_says_that_the_other_is_gone() -> None:
    said, nothing = together(WHOLE, stop_after=2)
    assert nothing is None and "Another process of this run is gone" in said


def test_adversaries_are_for_one_card() -> None:
    class Two(Group):
        rank, size = 0, 2

        def __init__(self) -> None: ...

    with pytest.raises(EraseError, match="set l_adv to 0"):
        make_trainer(replace(WHOLE, l_adv=1.0), team=Two())
