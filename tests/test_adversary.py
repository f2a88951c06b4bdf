"""Adversaries inside the erase step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import CONFIG, SETTINGS, make_tree, run
from torch import Tensor

from erase_core.flux.forward import Conditioning, velocity
from erase_core.lora import EraserLora
from erase_core.training import adversary
from erase_core.training.adversary import TOKENS, Adversaries

COUNT, LENGTH = 2, 14
COND = Conditioning(
    torch.randn(COUNT, LENGTH, 16, generator=torch.Generator().manual_seed(1)),
    torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(2)),
)


def adversaries(words: int = 5) -> Adversaries:
    return Adversaries(COND.context[0, :words], COND, COUNT, 0, torch.device("cpu"))


def test_they_take_the_place_of_padding() -> None:
    joined = adversaries().join(COND)
    assert torch.equal(joined.context[:, :-TOKENS], COND.context[:, :-TOKENS])
    assert not torch.isclose(joined.context[:, -TOKENS:], COND.context[:, -TOKENS:]).any(-1).all()
    assert torch.equal(joined.pooled, COND.pooled)  # until they learn
    assert len(adversaries().join(COND.select([0]))) == 1


def test_they_learn_what_the_base_model_would_do() -> None:
    """A student whose LoRA moves it gets nearer to the base model's velocity with every step."""
    tree, those = make_tree(), adversaries()
    lora = EraserLora.create(CONFIG, ("add_k_proj", "add_v_proj"), rank=2)
    for name, value in lora.state().items():
        value.data.normal_(generator=torch.Generator().manual_seed(3)) if "lora_B" in name else None
    x = torch.randn(COUNT, 16, 4, 6, generator=torch.Generator().manual_seed(4))
    sigma = torch.tensor([0.9, 0.4])
    with torch.no_grad():
        concept = velocity(tree, x, sigma, COND, 3.5)

    def distance() -> Tensor:
        return (student() - concept).square().mean()

    def student() -> Tensor:
        return velocity(tree, x, sigma, those.join(COND), 3.5, lora=lora)

    before = distance().item()
    for _ in range(20):
        those.learn(student(), concept)
    assert distance().item() < 0.8 * before
    assert all(p.grad is None for p in (*lora.parameters(), *tree.parameters()))


def test_one_after_another_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversary, "LIFE", 3)
    those = adversaries()
    rows = those.rows.detach().clone()
    for step in range(3):
        those.learn(those.rows.sum() + those.pooled.sum() * torch.ones(1), torch.zeros(1))
        if step < 2:
            assert those.pooled.detach().all()
    assert not those.pooled[1].any()
    assert those.pooled[0].all()
    assert (those.rows[1] - rows[1]).abs().max() > 0.5  # another start, not a step
    moments = those.optimiser.state[those.rows]["exp_avg"]
    assert not moments[1].any()
    assert moments[0].any()


def test_their_loss_is_eq_2_at_their_prompts() -> None:
    history = run(replace(SETTINGS, l_adv=1.0)).history
    assert all("adv" in losses for losses in history)
    assert run(replace(SETTINGS, l_adv=1.0)).history == history
    assert all("adv" not in losses for losses in run().history)
    push = [losses["adv"] / losses["esd"] for losses in history]
    assert 0.2 < push[0] < 5  # the same target at the same states
