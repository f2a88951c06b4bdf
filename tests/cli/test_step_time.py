"""The counts behind tools/bench/step_time.py, against torch's own counter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CONFIG, LENGTH, SETTINGS, make_trainer, make_tree
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import flops
import growth

from erase_core.methods.eraseanything.levels import Levels
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.models.base import Conditioning
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import velocity

TOOLS = Path(flops.__file__).parent
FLUX = FluxConfig()


def test_a_forward_pass_is_counted_exactly() -> None:
    cond = Conditioning(torch.ones(1, LENGTH, 16), torch.ones(1, 8))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        velocity(make_tree(), torch.ones(1, 16, 4, 6), torch.ones(1), cond, 3.5)
    assert flops.passes(CONFIG, 6, LENGTH).forward == counter.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_iteration_is_counted_but_for_the_lora(checkpointing: bool) -> None:
    settings = replace(SETTINGS, height=256, width=256, activation_checkpointing=checkpointing)
    trainer = make_trainer(replace(settings, steps=1, rank=1))
    prompts = trainer.encode()
    trainer.run()
    states = trainer.states
    assert states is not None
    levels = Levels(
        trainer.model, trainer.lora, prompts, trainer.settings, trainer.blocks, trainer.guidance
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        trainer._iterate(states, levels)
    assert flops.ours(CONFIG, settings, LENGTH) == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


def test_the_true_model_costs_what_is_said() -> None:
    assert flops.passes(FLUX, 1024, 256).forward == pytest.approx(17.7e12, rel=0.01)
    assert flops.passes(FLUX, 1024, 512).forward == pytest.approx(21.5e12, rel=0.01)
    settings = TrainSettings(batch=1)
    forwards = flops.released(FLUX, settings, 256, 28) / flops.passes(FLUX, 1024, 256).forward
    assert 145 < forwards < 150


def test_growth_is_tabulated_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "growth.png"
    monkeypatch.setattr(sys, "argv", ["growth.py", str(picture)])
    growth.main()
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("| 512 px |"))
    forward, ours, released, times = (float(cell) for cell in line.replace(",", "").split("|")[2:6])
    assert forward == pytest.approx(17.7, abs=0.2) and ours / forward < 5
    assert 145 < released / forward < 150 and times == pytest.approx(released / ours, abs=0.1)
    assert all(f"| {title} |" in out for title in growth.TABLES)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    for panel in (pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]):
        assert (panel != 255).mean() > 0.01


@pytest.mark.slow
def test_ours_is_eight_times_the_released_schedule() -> None:
    command = [sys.executable, str(TOOLS / "step_time.py"), "--batch", "2", "--rollouts", "2"]
    env = {"PYTHONPATH": str(TOOLS.parents[1]), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*command, "--clock", "process"], check=True, capture_output=True, text=True, env=env
    ).stdout
    assert float(out.splitlines()[-1].split()[1]) >= 8
