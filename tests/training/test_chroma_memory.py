"""What is predicted of Chroma's memory is what is held, as test_memory.py has it of FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CHROMA, CONCEPTS, MaskedText, make_chroma
from training.held import CPU, held_in_an_erase_step, held_in_drawing, in_bfloat16, short

from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning
from erase_core.models.chroma.config import ChromaConfig
from erase_core.models.chroma.names import skeleton
from erase_core.models.chroma.tree import Chroma
from erase_core.models.offload import Placement
from erase_core.training.memory import drawing_bytes

DEEP = replace(CHROMA, hidden_size=256, num_heads=2, depth=3, depth_single_blocks=4)


class AllRead(MaskedText):
    """Prompts as long as they can be, for which an estimate is made."""

    def _masked(self, prompts: Sequence[str]) -> Conditioning:
        found = super()._masked(prompts)
        assert found.mask is not None
        return replace(found, mask=torch.ones_like(found.mask))


def make_trainer(checkpointing: bool, pixels: int, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    tree = Chroma(DEEP).bfloat16().requires_grad_(False)
    settings = short(checkpointing, pixels, **changes)
    return Trainer(make_chroma(tree=tree, config=DEEP, text=AllRead()), CONCEPTS, settings)


@pytest.mark.parametrize(
    ("placement", "checkpointing", "changes"),
    [
        (Placement(), False, {}),
        (Placement(), True, {}),
        (Placement(), False, {"l_adv": 1.0}),
        (Placement(), True, {"l_adv": 1.0}),
        (Placement(fp8=True, away=3), True, {}),
    ],
    ids=str,
)
def test_the_peak_is_as_predicted(
    placement: Placement, checkpointing: bool, changes: dict[str, Any]
) -> None:
    said, held = held_in_an_erase_step(make_trainer(checkpointing, 256, **changes), placement)
    assert said == pytest.approx(held, rel=0.06)


@pytest.mark.parametrize("probed", [False, True])
def test_the_true_model_takes_no_more_than_is_said_to_draw(
    probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 1024 px picture with its negative prompt, in tensors without storage."""
    config = ChromaConfig()
    tree: Any = skeleton(config).bfloat16()
    tree.compute_device = CPU
    model = make_chroma(tree=tree, config=config, text=SimpleNamespace(length=256))
    said = drawing_bytes(model, (1024, 1024), probed)
    make, blocks = partial(in_bfloat16, Chroma, config), 19 if probed else 0
    held = held_in_drawing(model, make, 4096, (16, 128, 128), blocks, monkeypatch)
    assert held <= said <= 1.125 * held
