"""Methods on families other than FLUX.1: all work, and a run repeats itself and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from methods.test_bench_methods import NAMES, TIGER, erase, short  # noqa: F401
from tiny import (
    SETTINGS,
    make_chroma,
    make_flux2,
    make_qwen_image,
    make_sd3,
    make_trainer,
    make_zimage,
    same,
)

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.load import load
from erase_core.methods.base import Task, methods
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Model
from erase_core.training.run_folder import checkpoints

MAKERS = {
    "chroma": make_chroma,
    "flux2": make_flux2,
    "qwen_image": make_qwen_image,
    "sd3": make_sd3,
    "zimage": make_zimage,
}
# SPEED leaves the space of what stays alone, which here are all sixteen directions of a text state;
# tests/cli has wider ones.
WORKING = [name for name in NAMES if name != "speed" and not methods()[name].families]
# A role that is a part of a matrix, of which a checkpoint holds that part alone.
PART = {"targets": ("text.q", "text.k", "single.attention")}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("name", WORKING)
def test_a_method_changes_something(name: str, make: Callable[[], Model], tmp_path: Path) -> None:
    task = Task(make(), ConceptSet((TIGER,)))
    before = {key: tensor.clone() for key, tensor in task.model.tree.state_dict().items()}
    eraser = erase(name, task)
    assert same(task.model.tree.state_dict(), before)
    eraser.save(tmp_path / "eraser.safetensors")
    loaded = load(tmp_path / "eraser.safetensors", task.model)
    cond, x = task.model.text.encode(["a photo of a tiger"]), task.model.noise([1])
    with torch.no_grad():
        plain, moved, again = (
            task.model.velocity(x, torch.tensor(0.5), cond, 4.0, e) for e in (None, eraser, loaded)
        )
    assert not torch.equal(plain, moved)
    torch.testing.assert_close(again, moved)


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (make_chroma, {}),
        (make_flux2, PART),
        (make_qwen_image, {}),
        (make_sd3, {"targets": (*PART["targets"][:2], "pooled_in")}),
        (make_zimage, PART),
    ],
    ids=MAKERS,
)
def test_a_run_ends_repeats_itself_and_goes_on(
    make: Callable[[], Model], more: dict[str, Any], tmp_path: Path
) -> None:
    wanted = replace(
        SETTINGS,
        steps=4,
        guidance_rollout=4.0,
        checkpoint_every=2,
        l_adv=1.0,
        l_rsc=0.1,
        **more,
    )
    first = make_trainer(wanted, model=make(), checkpoint_dir=tmp_path).run()
    assert first.stopped == "done" and len(first.history) == 4
    assert {"esd", "attn", "adv", "lora"} <= set().union(*first.history)
    again = make_trainer(wanted, model=make()).run()
    assert same(first.eraser.tensors(), again.eraser.tensors())
    trainer = Trainer.resume(checkpoints(tmp_path)[0], make())
    assert trainer.step == 2
    assert same(trainer.run().eraser.tensors(), first.eraser.tensors())
