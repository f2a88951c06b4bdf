"""A run that ends early: cancelled, failed, diverged; checkpoints and going on from them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    CONFIG,
    LENGTH,
    SETTINGS,
    TIGER,
    WordText,
    broken_by,
    make_model,
    make_trainer,
    make_tree,
    run,
    same,
    stop_at,
)

from erase_core.concepts.sets import Bands, ConceptSet
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.guard import Guard
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.tree import Flux
from erase_core.training.progress import Progress
from erase_core.training.run_folder import checkpoints, load_checkpoint
from erase_core.training.states import KeepPictures


def test_cancel_keeps_the_work_done() -> None:
    result = run(on_step=stop_at(4, KeyboardInterrupt))
    assert result.stopped == "cancelled"
    assert len(result.history) == 4
    assert same(result.eraser.state(), run(replace(SETTINGS, steps=4)).eraser.state())


@pytest.mark.parametrize("phase", ["text", "rollouts"])
def test_cancel_before_training_leaves_a_lora_that_does_nothing(phase: str) -> None:
    def on_step(progress: Progress) -> None:
        if progress.phase == phase:
            raise KeyboardInterrupt

    result = run(on_step=on_step)
    assert result.stopped == "cancelled"
    assert not any(v.any() for k, v in result.eraser.state().items() if "lora_B" in k)


def test_another_error_reaches_the_caller_and_the_work_is_kept() -> None:
    trainer = make_trainer(on_step=stop_at(4, RuntimeError))
    with broken_by(RuntimeError):
        trainer.run()
    assert same(trainer.lora.state(), run(replace(SETTINGS, steps=4)).eraser.state())


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights() -> None:
    result = run(replace(SETTINGS, steps=30, lr_low=1e25))
    assert result.stopped == "diverged"
    assert len(result.history) < 30
    assert all(p.isfinite().all() for p in result.eraser.parameters())


def test_an_exploding_loss_stops_with_weights_from_before() -> None:
    """One word in place of another is a small push; at this rate the student overshoots it."""
    settings = replace(
        SETTINGS,
        steps=60,
        lr_low=1.0,
        targets=("add_v_proj", "to_add_out", "vector_in"),
        null="replace",
        l_attn=0.0,
        l_rsc=0.0,
    )
    result = run(settings)
    assert result.stopped == "diverged"
    assert len(result.history) < 60
    assert all(p.isfinite().all() and p.abs().max() < 1 for p in result.eraser.parameters())
    assert run(replace(settings, steps=20, lr_low=1e-3)).stopped == "done"


def test_the_guard_goes_back_to_weights_from_before_the_losses_rose() -> None:
    lora = EraserLora.create(FAMILY.slots(CONFIG, ["text.q"]), rank=2)
    guard = Guard(lora, idle=1.0, watched=("esd", "lora"))
    name = "transformer_blocks.0.attn.add_q_proj.lora_B.weight"
    outcomes = []
    for step in range(60):
        lora.load_state({name: torch.full((128, 2), float(step))})
        guard.before(step)
        outcomes.append(guard.healthy({"esd": 0.5 if step < 25 else 9.0, "attn": 99.0}))
    stop = outcomes.index(False)
    smoothed = 0.0
    for step in range(stop + 1):
        smoothed = 0.95 * smoothed + 0.05 * (0.5 if step < 25 else 9.0)
    assert stop > 25 and smoothed > 3.0
    guard.restore()
    assert (lora.state()[name] == 20.0).all()
    assert not guard.healthy({"esd": float("nan")})


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"refresh_every": 2, "alpha": 3.0, "l_lora": 0.0}, {"l_adv": 1.0}]
)
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    settings = replace(SETTINGS, steps=8, **options)
    whole = run(settings)
    make_trainer(settings, checkpoint_dir=tmp_path, on_step=stop_at(5, KeyboardInterrupt)).run()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000003", "step-000005"]
    resumed = Trainer.resume(tmp_path, make_model())
    assert resumed.step == 5
    result = resumed.run()
    assert same(result.eraser.state(), whole.eraser.state())
    assert result.history == whole.history
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000005", "step-000006"]


def test_resume_with_pictures_and_more_steps(tmp_path: Path) -> None:
    pictures = KeepPictures(torch.randn(2, 16, 4, 6), ("a rose", "a lion"))
    whole = run(replace(SETTINGS, steps=8), pictures=pictures)
    run(pictures=pictures, checkpoint_dir=tmp_path)
    latest = tmp_path / "step-000006"
    result = Trainer.resume(latest, make_model(), steps=8).run()
    assert same(result.eraser.state(), whole.eraser.state())


def test_pictures_stand_for_the_irrelevant_words_of_a_resumed_run_too(tmp_path: Path) -> None:
    alone = ConceptSet((replace(TIGER, irrelevant=Bands()),))
    settings = replace(SETTINGS, l_rsc=0.0, null="empty")
    pictures = KeepPictures(torch.randn(2, 16, 4, 6), ("a rose", "a lion"))
    run(settings, concepts=alone, pictures=pictures, checkpoint_dir=tmp_path)
    resumed = Trainer.resume(tmp_path, make_model(), steps=7)
    assert resumed.states is not None
    assert resumed.workload().states == sum(
        tensor.nbytes for part in resumed.states.tensors().values() for tensor in part.values()
    )
    assert resumed.run().stopped == "done"


def test_prompts_of_another_length_do_not_go_on(tmp_path: Path) -> None:
    class Longer(WordText):
        length = LENGTH + 1

        def _words(self, prompt: str) -> list[str]:
            return [*super()._words(prompt), "<pad>"]

    run(checkpoint_dir=tmp_path)
    resumed = Trainer.resume(tmp_path, make_model(text=Longer()), steps=7)
    with broken_by(EraseError, "14 tokens, not 15; .*--t5-length 14"):
        resumed.run()


def test_a_checkpoint_that_was_read_can_be_deleted_by_windows_too(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path)
    snapshot = load_checkpoint(tmp_path).snapshot
    maps = Path("/proc/self/maps")  # Windows keeps what is mapped
    if maps.exists():
        assert snapshot.training and str(tmp_path) not in maps.read_text()


def test_a_checkpoint_is_plain_files_with_a_lora_that_loads(tmp_path: Path) -> None:
    result = run(replace(SETTINGS, alpha=3.0), checkpoint_dir=tmp_path)
    folder = checkpoints(tmp_path)[-1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "erase.safetensors",
        "keep.safetensors",
        "lora.safetensors",
        "run.json",
        "training.safetensors",
    ]
    assert json.loads((folder / "run.json").read_text())["step"] == 6
    saved = EraserLora.load(folder / "lora.safetensors", FAMILY.linears(CONFIG))
    assert same(saved.tensors(), result.eraser.tensors())


def test_old_checkpoints_are_cleaned_up(tmp_path: Path) -> None:
    run(replace(SETTINGS, checkpoint_every=1, keep_checkpoints=2), checkpoint_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000005", "step-000006"]


def test_a_failed_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import erase_core.training.checkpoint as module

    calls = itertools.count()

    def full(path: Path, value: object) -> None:
        if next(calls) >= 1:
            raise OSError(28, "No space left on device")
        path.write_text(json.dumps(value))

    monkeypatch.setattr(module, "write_json", full)
    trainer = make_trainer(checkpoint_dir=tmp_path)
    with broken_by(EraseError, "No space left"):
        trainer.run()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    assert trainer.step == 6
    assert Trainer.resume(tmp_path, make_model()).step == 3


def test_stale_state_is_never_continued_by_accident(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path)
    with pytest.raises(EraseError, match="another run"):
        make_trainer(checkpoint_dir=tmp_path)


def test_resume_refuses_another_base(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path)
    with broken_by(EraseError, "another base"):
        Trainer.resume(tmp_path, make_model(make_tree(seed=1))).run()
    other = replace(CONFIG, hidden_size=256, num_heads=2)
    with pytest.raises(EraseError, match="another base"):
        Trainer.resume(tmp_path, make_model(Flux(other), config=other))
    with pytest.raises(EraseError, match="no checkpoint"):
        Trainer.resume(tmp_path / "nowhere", make_model())
