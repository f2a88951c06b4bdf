"""What is predicted of FLUX.2's memory is what is held, as test_memory.py has it of FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, FLUX2, FLUX2_FAMILY, NegativeText, make_flux2
from torch import Tensor
from training.held import (
    CPU,
    first_that_fits,
    held_in_an_erase_step,
    held_in_drawing,
    held_without_storage,
    in_bfloat16,
    short,
)

from erase_core.methods.base import find_method
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning
from erase_core.models.flux2.config import KLEIN_9B, Flux2Config
from erase_core.models.flux2.names import skeleton
from erase_core.models.flux2.tree import Flux2
from erase_core.models.offload import Placement
from erase_core.training.memory import USED, drawing_bytes

KLEIN_4B = Flux2Config()
BLOCKS = FLUX2_FAMILY.blocks
DEEP = replace(FLUX2, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3)


def make_trainer(checkpointing: bool, pixels: int, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    tree = Flux2(DEEP).bfloat16().requires_grad_(False)
    settings = short(checkpointing, pixels, **changes)
    return Trainer(make_flux2(tree=tree, config=DEEP), CONCEPTS, settings)


@pytest.mark.parametrize(
    ("placement", "checkpointing", "pixels", "changes"),
    [
        (Placement(), False, 256, {}),
        (Placement(), True, 256, {}),
        (Placement(), True, 512, {}),  # where the probed attention decides
        (Placement(), False, 256, {"l_adv": 1.0}),
        (Placement(), True, 256, {"l_adv": 1.0}),
        (Placement(fp8=True), True, 64, {}),  # where a matrix that is widened does
        (Placement(fp8=True, away=3), True, 256, {}),
    ],
    ids=str,
)
def test_the_peak_is_as_predicted(
    placement: Placement, checkpointing: bool, pixels: int, changes: dict[str, Any]
) -> None:
    trainer = make_trainer(checkpointing, pixels, **changes)
    said, held = held_in_an_erase_step(trainer, placement)
    assert said == pytest.approx(held, rel=0.06)


class LongText(NegativeText):
    """As many tokens as Qwen3 gives, as wide."""

    length = 512

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        context = torch.zeros(1, 512, self.width).expand(len(prompts), -1, -1)
        return Conditioning(context, negative=Conditioning(context[:1]))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        return torch.eye(1, 512)[0]


FP8 = Placement(fp8=True)
CARDS = [  # all of them with activations recomputed
    ("4B", 24, Placement()),
    ("4B", 16, Placement()),
    ("4B", 12, FP8),
    ("9B", 24, FP8),
    ("9B", 16, replace(FP8, away=11)),
    ("9B", 12, replace(FP8, away=25)),
]


@pytest.mark.parametrize(("size", "gigabytes", "way"), CARDS)
def test_the_true_models_fit_every_card(
    size: str, gigabytes: int, way: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 512 px and the default batch: what is predicted is what tensors without storage add up to
    when an erase step is taken with them."""
    config = {"4B": KLEIN_4B, "9B": KLEIN_9B}[size]
    tree: Any = skeleton(config).bfloat16()
    tree.compute_device = CPU
    text = LongText(config.context_in_dim)
    model = make_flux2(tree=tree, config=config, text=text, size=(1024, 1024), trained=(512, 512))
    trainer = Trainer(model, CONCEPTS, find_method("eraseanything").suited(model, CONCEPTS))
    assert (trainer.settings.height, trainer.settings.batch) == (512, 8)
    trainer.encode()
    placement, on, said = first_that_fits(trainer, gigabytes)
    assert (placement, on) == (way, True) and said / 1e9 < USED * gigabytes
    make = partial(in_bfloat16, Flux2, config)
    held = held_without_storage(trainer, placement, on, make, monkeypatch)
    assert said == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("probed", [False, True])
def test_the_true_model_takes_no_more_than_is_said_to_draw(
    probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 1024 px picture with its negative prompt, in tensors without storage."""
    tree: Any = skeleton(KLEIN_4B).bfloat16()
    tree.compute_device = CPU
    model = make_flux2(tree=tree, config=KLEIN_4B, text=SimpleNamespace(length=512))
    said = drawing_bytes(model, (1024, 1024), probed)
    make, blocks = partial(in_bfloat16, Flux2, KLEIN_4B), 5 if probed else 0
    held = held_in_drawing(model, make, 7680, (128, 64, 64), blocks, monkeypatch)
    assert held <= said <= 1.125 * held
