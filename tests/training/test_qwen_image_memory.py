"""What is predicted of Qwen-Image's memory is what is held, as test_memory.py has it of FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, QWEN_IMAGE, MaskedText, make_qwen_image
from torch import Tensor
from training.held import (
    CPU,
    PEAKS,
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
from erase_core.models.qwen_image.config import QwenImageConfig
from erase_core.models.qwen_image.names import skeleton
from erase_core.models.qwen_image.text import LENGTH
from erase_core.models.qwen_image.tree import QwenImage
from erase_core.training.memory import USED, drawing_bytes

TRUE = QwenImageConfig()
DEEP = replace(QWEN_IMAGE, hidden_size=256, num_heads=2, depth=3)


class AllRead(MaskedText):
    """Prompts as long as they can be, for which an estimate is made."""

    def _masked(self, prompts: Sequence[str]) -> Conditioning:
        found = super()._masked(prompts)
        assert found.mask is not None
        return replace(found, mask=torch.ones_like(found.mask))


@pytest.mark.parametrize(("placement", "checkpointing", "pixels", "changes"), PEAKS, ids=str)
def test_the_peak_is_as_predicted(
    placement: Placement, checkpointing: bool, pixels: int, changes: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    tree = QwenImage(DEEP).bfloat16().requires_grad_(False)
    settings = short(checkpointing, pixels, **changes)
    model = make_qwen_image(tree=tree, config=DEEP, text=AllRead())
    said, held = held_in_an_erase_step(Trainer(model, CONCEPTS, settings), placement)
    assert said == pytest.approx(held, rel=0.06)


class SentenceText(MaskedText):
    """As many tokens as a sentence has with what stands behind it, as wide."""

    length = 64

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        context = torch.zeros(1, 64, TRUE.context_in_dim).expand(len(prompts), -1, -1)
        return Conditioning(context, negative=Conditioning(context[:1]))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        return torch.eye(1, 64)[0]


CARDS = [(24, 18), (16, 40), (12, 50)]  # and how many of 60 blocks are away


@pytest.mark.parametrize(("gigabytes", "away"), CARDS)
def test_the_true_model_fits_every_card(
    gigabytes: int, away: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 512 px and the default batch: what is predicted is what tensors without storage add up to
    when an erase step is taken with them."""
    tree: Any = skeleton(TRUE).bfloat16()
    tree.compute_device = CPU
    sizes = {"size": (1024, 1024), "trained": (512, 512)}
    model = make_qwen_image(tree=tree, config=TRUE, text=SentenceText(), **sizes)
    trainer = Trainer(model, CONCEPTS, find_method("eraseanything").suited(model, CONCEPTS))
    assert (trainer.settings.height, trainer.settings.batch) == (512, 8)
    trainer.encode()
    placement, on, said = first_that_fits(trainer, gigabytes)
    assert (placement, on) == (Placement(fp8=True, away=away), True)
    assert said / 1e9 < USED * gigabytes
    make = partial(in_bfloat16, QwenImage, TRUE)
    held = held_without_storage(trainer, placement, on, make, monkeypatch)
    assert said == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("probed", [False, True])
def test_the_true_model_takes_no_more_than_is_said_to_draw(
    probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 1024 px picture with its negative prompt, in tensors without storage."""
    tree: Any = skeleton(TRUE).bfloat16()
    tree.compute_device = CPU
    model = make_qwen_image(tree=tree, config=TRUE, text=SimpleNamespace(length=LENGTH))
    said = drawing_bytes(model, (1024, 1024), probed)
    make, blocks = partial(in_bfloat16, QwenImage, TRUE), TRUE.depth if probed else 0
    held = held_in_drawing(model, make, TRUE.context_in_dim, (16, 128, 128), blocks, monkeypatch)
    assert held <= said <= 1.3 * held
