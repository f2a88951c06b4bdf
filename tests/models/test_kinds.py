"""What holds of every family that draws with a negative prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.kinds import FLUX2, QWEN_IMAGE, SD3, ZIMAGE, Kind, random_lora
from torch import Tensor

from erase_core.erasers.load import load
from erase_core.models.base import Probe

PROMPT = "a photo of a tiger"


@pytest.mark.parametrize("kind", [FLUX2, ZIMAGE, SD3, QWEN_IMAGE], ids=lambda k: k.family.name)
def test_a_lora_comes_back(kind: Kind, tmp_path: Path) -> None:
    model = kind.make()
    lora = random_lora(model)
    lora.save(tmp_path / "lora.safetensors")
    again = load(tmp_path / "lora.safetensors", model)
    cond, x, sigma = model.text.encode([PROMPT] * 2), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        both = [model.velocity(x, sigma, cond, None, e) for e in (lora, again)]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("kind", [FLUX2, ZIMAGE, QWEN_IMAGE], ids=lambda k: k.family.name)
def test_the_probe_looks_at_one_pass(kind: Kind) -> None:
    model = kind.make()
    cond = model.text.encode([PROMPT])
    assert cond.negative is not None
    words = model.text.token_mask(PROMPT, "tiger")[None, None]
    x, sigma, probe = model.noise([1]), torch.tensor(0.7), Probe((0, 1), words)
    with torch.no_grad():
        guided = model.predict(x, sigma, cond, 4.0, probe=probe)
        plain = model.predict(x, sigma, cond, None, probe=probe)
    assert guided.attention is not None and plain.attention is not None
    assert torch.equal(guided.attention, plain.attention)
    assert guided.attention.shape == (1, 2, 1, 1, 6)


@pytest.mark.parametrize("kind", [ZIMAGE, QWEN_IMAGE], ids=lambda k: k.family.name)
def test_instant_erasers_see_what_the_first_linear_reads(kind: Kind) -> None:
    """Of these families a norm stands before it."""
    model = kind.make()
    cond = model.text.encode([PROMPT])
    read: list[Tensor] = []

    def note(name: str, x: Tensor, y: Tensor) -> Tensor:
        read.extend([x] if name == kind.reads else [])
        return y

    with torch.no_grad():
        model.velocity(model.noise([1]), torch.tensor(0.7), cond, None, note)
    found = kind.family.entering(model.tree, cond.context[0])
    torch.testing.assert_close(found[: read[0].shape[1]], read[0][0])
    assert not torch.equal(found, cond.context[0])
