"""What is predicted of Z-Image's memory is what is held, as test_memory.py has it of FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, ZIMAGE, FilledText, make_zimage
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
from erase_core.models.offload import Placement
from erase_core.models.zimage.config import ZImageConfig
from erase_core.models.zimage.names import skeleton
from erase_core.models.zimage.presets import TEXT
from erase_core.models.zimage.tree import ZImage
from erase_core.training.memory import USED, drawing_bytes

TRUE = ZImageConfig()
DEEP = replace(ZIMAGE, hidden_size=256, num_heads=2, mlp_width=683)


@pytest.mark.parametrize(
    ("placement", "checkpointing", "pixels"),
    [
        (Placement(), False, 256),
        (Placement(), True, 256),
        (Placement(), True, 512),  # where the probed attention decides
        (Placement(fp8=True, away=3), True, 256),
    ],
    ids=str,
)
def test_the_peak_is_as_predicted(placement: Placement, checkpointing: bool, pixels: int) -> None:
    torch.manual_seed(0)
    tree = ZImage(DEEP).bfloat16().requires_grad_(False)
    settings = short(checkpointing, pixels, targets=TEXT, null="replace")
    trainer = Trainer(make_zimage(tree=tree, config=DEEP), CONCEPTS, settings)
    said, held = held_in_an_erase_step(trainer, placement)
    assert said == pytest.approx(held, rel=0.06)


class LongText(FilledText):
    """As many tokens as a sentence has with its template, as wide."""

    length = 64

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        context = torch.zeros(1, 64, TRUE.context_in_dim).expand(len(prompts), -1, -1)
        return Conditioning(context, negative=Conditioning(context[:1]))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        return torch.eye(1, 64)[0]


CARDS = [  # all of them with activations recomputed
    (24, Placement()),
    (16, Placement(fp8=True)),
    (12, Placement(fp8=True, away=12)),
]


@pytest.mark.parametrize(("gigabytes", "way"), CARDS)
def test_the_true_model_fits_every_card(
    gigabytes: int, way: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 512 px and the default batch: what is predicted is what tensors without storage add up to
    when an erase step is taken with them."""
    tree: Any = skeleton(TRUE).bfloat16()
    tree.compute_device = CPU
    sizes = {"size": (1024, 1024), "trained": (512, 512)}
    model = make_zimage(tree=tree, config=TRUE, text=LongText(), **sizes)
    trainer = Trainer(model, CONCEPTS, find_method("eraseanything").suited(model, CONCEPTS))
    assert (trainer.settings.height, trainer.settings.batch) == (512, 8)
    assert trainer.settings.targets == TEXT
    trainer.encode()
    placement, on, said = first_that_fits(trainer, gigabytes)
    assert (placement, on) == (way, True) and said / 1e9 < USED * gigabytes
    make = partial(in_bfloat16, ZImage, TRUE)
    held = held_without_storage(trainer, placement, on, make, monkeypatch)
    assert said == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("probed", [False, True])
def test_the_true_model_takes_no_more_than_is_said_to_draw(
    probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 1024 px picture with its negative prompt, in tensors without storage."""
    tree: Any = skeleton(TRUE).bfloat16()
    tree.compute_device = CPU
    model = make_zimage(tree=tree, config=TRUE, text=SimpleNamespace(length=512))
    said = drawing_bytes(model, (1024, 1024), probed)
    make, blocks = partial(in_bfloat16, ZImage, TRUE), 30 if probed else 0
    held = held_in_drawing(model, make, TRUE.context_in_dim, (16, 128, 128), blocks, monkeypatch)
    assert held <= said <= 1.3 * held
