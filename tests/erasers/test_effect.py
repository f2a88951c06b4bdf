"""One line that says whether an eraser took effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase_core.erasers.effect import changes, effect, moved
from erase_core.erasers.lora import EraserLora
from erase_core.miniatures.miniflux import load as load_miniflux
from erase_core.tensors import read_tensors


def test_changes_are_counted_whoever_wrote_the_file(tmp_path: Path) -> None:
    slots = load_miniflux().slots(["text.q", "text.k"])
    EraserLora.create(slots, 4).save(tmp_path / "a.safetensors")
    assert changes(read_tensors(tmp_path / "a.safetensors")[0]) == len(slots) == 4
    kohya = [f"lora_unet_a.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")]
    assert changes(kohya) == 1
    assert changes(["diffusion_model.a.diff", "diffusion_model.a.diff_b"]) == 2


def test_pictures_move_by_a_share_of_the_range() -> None:
    before = torch.full((2, 4, 4, 3), 0.25)
    after = before.clone()
    after[1] += 0.5
    assert moved(before, after) == pytest.approx(0.25)
    assert moved(before, before) == 0


def test_the_line_says_what_happened_and_what_to_do() -> None:
    assert effect(38, 38, 0.083, 1.0) == (
        "Took effect: 38 of the file's 38 weights are patched, and pictures moved by 8.3 % at "
        "strength 1."
    )
    assert effect(20, 38, 0.083, -1.0).startswith("Took effect in part: 20 of the file's 38")
    assert "none of the file's 38 weights is this model's; choose" in effect(0, 38, 0.0)
    assert effect(38, 38, 0.001).startswith("Nothing changed: 38 of the file's 38")
    assert effect(38, 38).endswith("add 0 to the strengths to see how far pictures move.")
