"""Adversaries inside the erase step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import CONFIG, SETTINGS, make_trainer, make_tree, run
from torch import Tensor

from erase_core.erasers.lora import EraserLora
from erase_core.methods.eraseanything import adversary
from erase_core.methods.eraseanything.adversary import TOKENS, Adversaries
from erase_core.methods.eraseanything.levels import Levels
from erase_core.models.base import Conditioning
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.forward import velocity

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


def test_prompts_without_a_pooled_vector_have_adversaries_too() -> None:
    bare = Conditioning(COND.context)
    those = Adversaries(COND.context[0, :5], bare, COUNT, 0, torch.device("cpu"))
    joined = those.join(bare)
    assert joined.pooled is None and torch.equal(joined.context, adversaries().join(COND).context)
    before = those.rows.detach().clone()
    those.learn(joined.context.sum() * torch.ones(1), torch.zeros(1))
    assert not torch.equal(those.rows, before)
    assert "rows" in those.state("") and "pooled" not in those.state("")


def test_they_learn_what_the_base_model_would_do() -> None:
    """A student whose LoRA moves it gets nearer to the base model's velocity with every step."""
    tree, those = make_tree(), adversaries()
    lora = EraserLora.create(FAMILY.slots(CONFIG, ("text.k", "text.v")), rank=2)
    for name, value in lora.state().items():
        if "lora_B" in name:
            value.data.normal_(generator=torch.Generator().manual_seed(3))
    x = torch.randn(COUNT, 16, 4, 6, generator=torch.Generator().manual_seed(4))
    sigma = torch.tensor([0.9, 0.4])
    with torch.no_grad():
        concept = velocity(tree, x, sigma, COND, 3.5)

    def distance() -> Tensor:
        return (student() - concept).square().mean()

    def student() -> Tensor:
        return velocity(tree, x, sigma, those.join(COND), 3.5, eraser=lora)

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
        those.learn(
            those.rows.sum() + those.learned["pooled"].sum() * torch.ones(1), torch.zeros(1)
        )
        if step < 2:
            assert those.learned["pooled"].detach().all()
    assert not those.learned["pooled"][1].any()
    assert those.learned["pooled"][0].all()
    assert (those.rows[1] - rows[1]).abs().max() > 0.5  # another start, not a step
    moments = those.optimiser.state[those.rows]["exp_avg"]
    assert not moments[1].any()
    assert moments[0].any()


def test_their_loss_is_eq_2_at_their_prompts() -> None:
    """With a LoRA still at zero, so that the student is the base model."""
    settings = replace(SETTINGS, l_adv=1.0, steps=1, lr_low=0.0, lr_up=0.0, null="replace")
    trainer = make_trainer(settings)
    trainer.run()
    assert trainer.states is not None
    batch = trainer.states.erase.draw(trainer.generator, 2)
    prompts = trainer.encode()
    levels = Levels(trainer.model, trainer.lora, prompts, settings, trainer.blocks, 3.5)
    cond = levels.adversaries[0].join(prompts.concept(batch.rows)[0])
    with torch.no_grad():
        student = velocity(trainer.model.tree, batch.latents, batch.sigma, cond, 3.5)
    assert batch.null is not None
    target = batch.null - settings.eta * (batch.target - batch.null)
    (losses,) = levels.adversarial(batch)
    assert losses["adv"].item() == pytest.approx((student - target).square().mean().item())


def test_they_are_seeded_and_only_there_when_asked_for() -> None:
    history = run(replace(SETTINGS, l_adv=1.0)).history
    assert all("adv" in losses for losses in history)
    assert run(replace(SETTINGS, l_adv=1.0)).history == history
    assert all("adv" not in losses for losses in run().history)
