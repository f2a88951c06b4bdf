"""What a run is said to take, against what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CONCEPTS, CONFIG, SETTINGS, WordText

from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.flux1.tree import Flux
from erase_core.models.offload import Weights
from erase_core.training.estimate import estimate, state_bytes
from erase_core.training.preview import Preview


def trainer(settings: TrainSettings, folder: Path | None = None) -> Trainer:
    torch.manual_seed(0)
    tree = Flux(CONFIG).requires_grad_(False)
    return Trainer(tree, CONFIG, WordText(), CONCEPTS, settings, checkpoint_dir=folder)


@pytest.mark.parametrize("change", [{}, {"l_rsc": 0.0}, {"l_esd": 0.0}])
def test_the_states_are_as_big_as_said(change: dict[str, float]) -> None:
    from dataclasses import replace

    run = trainer(replace(SETTINGS, **change))
    said = state_bytes(run)
    run.run()
    assert run.states is not None
    kept = [t for part in run.states.tensors().values() for t in part.values() if t.ndim > 1]
    assert said == sum(tensor.nbytes for tensor in kept)


def test_the_disk_holds_what_was_said(tmp_path: Path) -> None:
    run = trainer(SETTINGS, tmp_path)
    run.encode()
    said = estimate(run, Weights(10**9))
    run.run()
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0.8 < said.disk / taken < 1.3
    assert said.seconds > 0 and said.memory > 10**9
    assert str(said).startswith("about ") and str(said).endswith(" on disk")


def test_a_preview_shows_the_concept_and_something_that_stays() -> None:
    run = trainer(SETTINGS)
    preview = Preview.of(run)
    assert len(preview.prompts) == 2
    assert "tiger" in preview.prompts[0] or "big cat" in preview.prompts[0]
    told: list[int] = []
    before = preview.latents(on_step=told.append)
    assert told == list(range(1, 17))
    assert before.shape == (2, 16, 4, 6) and torch.equal(before, preview.latents(run.lora))
    for parameter in run.lora.parameters():
        parameter.data += 0.3
    assert not torch.equal(before, preview.latents(run.lora))
