"""Methods on FLUX.2: a negative prompt, no mask, no pooled vector, no biases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods.test_bench_methods import NAMES, TIGER, erase, short  # noqa: F401
from tiny import CONCEPTS, SETTINGS, make_flux2, make_trainer, same

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.load import load
from erase_core.methods.base import Task, find_method, methods
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.flux2 import DISTILLED
from erase_core.training.run_folder import checkpoints

OTHERS = [name for name in NAMES if methods()[name].families]


# SPEED leaves the space of what stays alone, which here are all sixteen directions of a text state;
# tests/cli/test_flux2.py has wider ones.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*OTHERS, "speed")])
def test_a_method_changes_something(name: str, tmp_path: Path) -> None:
    task = Task(make_flux2(), ConceptSet((TIGER,)))
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


def test_a_run_ends_repeats_itself_and_goes_on(tmp_path: Path) -> None:
    """With a role that is a part of a matrix, whose checkpoint holds that part alone."""
    wanted = replace(
        SETTINGS,
        steps=4,
        guidance_rollout=4.0,
        checkpoint_every=2,
        l_adv=1.0,
        l_rsc=0.1,
        targets=("text.q", "text.k", "single.attention"),
    )
    first = make_trainer(wanted, model=make_flux2(), checkpoint_dir=tmp_path).run()
    assert first.stopped == "done" and len(first.history) == 4
    assert {"esd", "attn", "adv", "lora"} <= set().union(*first.history)
    again = make_trainer(wanted, model=make_flux2()).run()
    assert same(first.eraser.tensors(), again.eraser.tensors())
    trainer = Trainer.resume(checkpoints(tmp_path)[0], make_flux2())
    assert trainer.step == 2
    assert same(trainer.run().eraser.tensors(), first.eraser.tensors())


def test_its_presets_are_said_to_be_unmeasured() -> None:
    model = make_flux2()
    method = find_method("eraseanything")
    suited = method.suited(model, CONCEPTS)
    assert (suited.guidance_rollout, suited.shift_mu) == (4.0, 2.02)
    few = method.suited(replace(model, family=DISTILLED), CONCEPTS)
    assert (few.guidance_rollout, few.rollout_steps) == (1.0, 4)
    for family in (model.family, DISTILLED):
        assert not any(p["measured"] for p in family.presets["eraseanything"].values())
