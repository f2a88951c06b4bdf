"""What is predicted of Stable Diffusion 3.5's memory is what is held, as test_memory.py has it of
FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, SD3_SIZES, TwoPartText, make_sd3
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from training.held import (
    CPU,
    PEAKS,
    Live,
    first_that_fits,
    held_in_an_erase_step,
    held_without_storage,
    in_bfloat16,
    short,
)

from erase_core.methods.base import find_method
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.models.base import Conditioning, Probe
from erase_core.models.offload import Placement
from erase_core.models.sd3.config import LARGE, SD3Config
from erase_core.models.sd3.names import skeleton
from erase_core.models.sd3.tree import SD3
from erase_core.training.memory import USED, drawing_bytes

MEDIUM = SD3Config()
DEEP = replace(SD3_SIZES, hidden_size=256, depth=3, dual=(0, 1), positions=32)


@pytest.mark.parametrize(("placement", "checkpointing", "pixels", "changes"), PEAKS, ids=str)
def test_the_peak_is_as_predicted(
    placement: Placement, checkpointing: bool, pixels: int, changes: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    tree = SD3(DEEP).bfloat16().requires_grad_(False)
    settings = short(checkpointing, pixels, **changes)
    trainer = Trainer(make_sd3(tree=tree, config=DEEP), CONCEPTS, settings)
    said, held = held_in_an_erase_step(trainer, placement)
    assert said == pytest.approx(held, rel=0.06)


class LongText(TwoPartText):
    """As many tokens as CLIP and T5 give, as wide."""

    parts = (77, 256)
    length = 333

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        context, pooled = torch.zeros(1, 333, 4096), torch.zeros(len(prompts), 2048)
        rows = context.expand(len(prompts), -1, -1)
        return Conditioning(rows, pooled, negative=Conditioning(context, pooled[:1]))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        return torch.eye(1, 333)[0]


FP8 = Placement(fp8=True)
CARDS = [
    (MEDIUM, 24, Placement(), False),
    (MEDIUM, 16, Placement(), True),
    (MEDIUM, 12, Placement(), True),
    (LARGE, 24, FP8, True),
    (LARGE, 16, replace(FP8, away=10), True),
    (LARGE, 12, replace(FP8, away=27), True),
]


@pytest.mark.parametrize(("config", "gigabytes", "way", "recomputed"), CARDS, ids=str)
def test_the_true_models_fit_every_card(
    config: SD3Config,
    gigabytes: int,
    way: Placement,
    recomputed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 512 px and the default batch: what is predicted is what tensors without storage add up to
    when an erase step is taken with them."""
    tree: Any = skeleton(config).bfloat16()
    tree.compute_device = CPU
    sizes = {"size": (1024, 1024), "trained": (512, 512)}
    model = make_sd3(tree=tree, config=config, text=LongText(), **sizes)
    trainer = Trainer(model, CONCEPTS, find_method("eraseanything").suited(model, CONCEPTS))
    assert (trainer.settings.height, trainer.settings.batch) == (512, 8)
    trainer.encode()
    placement, on, said = first_that_fits(trainer, gigabytes)
    assert said / 1e9 < USED * gigabytes
    make = partial(in_bfloat16, SD3, config)
    held = held_without_storage(trainer, placement, on, make, monkeypatch)
    assert said == pytest.approx(held, rel=0.02)
    assert (placement, on) == (way, recomputed)


@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize("config", [MEDIUM, LARGE], ids=["medium", "large"])
def test_the_true_models_take_no_more_than_is_said_to_draw(
    config: SD3Config, probed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 1024 px picture with its negative prompt, in tensors without storage."""
    tree: Any = skeleton(config).bfloat16()
    tree.compute_device = CPU
    model = make_sd3(tree=tree, config=config, text=SimpleNamespace(length=333))
    said = drawing_bytes(model, (1024, 1024), probed)
    monkeypatch.setattr(nn.Module, "to", lambda module, *args, **kwargs: module)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = replace(model, tree=in_bfloat16(SD3, config))
        empty = Conditioning(torch.zeros(1, 333, 4096), torch.zeros(1, 2048))
        cond, x = replace(empty, negative=empty), torch.zeros(1, 16, 128, 128)
        blocks = tuple(range(config.depth))
        probe = Probe(blocks, torch.zeros(1, 3, 333)) if probed else None
        with Live([*model.tree.parameters()]) as live:
            model.predict(x, torch.ones(()), cond, 4.0, probe=probe)
    assert live.peak <= said <= 1.3 * live.peak
