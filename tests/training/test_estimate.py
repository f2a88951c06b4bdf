"""What a run is said to take, against what it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SETTINGS, make_trainer

from erase_core.models.offload import Weights
from erase_core.training.estimate import estimate


@pytest.mark.parametrize("change", [{}, {"l_rsc": 0.0}, {"l_esd": 0.0}])
def test_the_states_are_as_big_as_said(change: dict[str, float]) -> None:
    run = make_trainer(replace(SETTINGS, **change))
    said = run.workload().states
    run.run()
    assert run.states is not None
    kept = [t for part in run.states.tensors().values() for t in part.values() if t.ndim > 1]
    assert said == sum(tensor.nbytes for tensor in kept)


def test_the_disk_holds_what_was_said(tmp_path: Path) -> None:
    run = make_trainer(SETTINGS, checkpoint_dir=tmp_path)
    run.encode()
    said = estimate(run, Weights(10**9))
    run.run()
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0.8 < said.disk / taken < 1.3
    assert said.seconds > 0 and said.memory > 10**9
    assert str(said).startswith("about ") and str(said).endswith(" on disk")


def test_a_preview_shows_the_concept_and_something_that_stays() -> None:
    run = make_trainer(SETTINGS)
    preview = run.preview()
    assert len(preview.prompts) == 2
    assert "tiger" in preview.prompts[0] or "big cat" in preview.prompts[0]
    plan = run.encode().plan
    for shown, texts in zip(
        preview.prompts,
        ([p.sentence.text for p in plan.erase], filter(None, plan.keep)),
        strict=True,
    ):
        assert len(shown.split()) == min(len(text.split()) for text in texts)
    told: list[int] = []
    before = preview.latents(on_step=told.append)
    assert told == list(range(2, 33, 2))  # steps of both pictures
    assert before.shape == (2, 16, 4, 6) and torch.equal(before, preview.latents(run.lora))
    for parameter in run.lora.parameters():
        parameter.data += 0.3
    assert not torch.equal(before, preview.latents(run.lora))
