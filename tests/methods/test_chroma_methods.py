"""Methods on a family with a negative prompt, a mask and no pooled vector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods.test_bench_methods import NAMES, TIGER, erase, short  # noqa: F401
from tiny import CHROMA, CONCEPTS, SETTINGS, make_chroma, make_trainer

from erase_core.concepts.sets import ConceptSet
from erase_core.errors import EraseError
from erase_core.methods.base import Task, find_method, methods
from erase_core.methods.closed import read
from erase_core.methods.eraseanything.adversary import TOKENS, Adversaries
from erase_core.models.base import Model
from erase_core.models.chroma.parity import diffusers_velocity

OTHERS = [name for name in NAMES if methods()[name].families]


def make_task(**changes: Any) -> Task:
    return Task(make_chroma(), ConceptSet((TIGER,)), **changes)


@pytest.mark.parametrize("name", OTHERS)
def test_a_method_for_another_family_says_so(name: str) -> None:
    with pytest.raises(EraseError, match="works on flux1 only"):
        find_method(name).erase(make_task())


def test_closed_forms_read_no_token_that_nobody_does() -> None:
    task = make_task()
    found = read(task, find_method("speed").settings())
    assert list(found) == ["txt_in"]
    rows = found["txt_in"]
    assert len(rows.empty) == 2  # the end, and one token of padding
    assert all(part.abs().sum(1).all() for part in (rows.old, rows.new, rows.kept, rows.empty))


# --- EraseAnything --------------------------------------------------------------------------------


def settings(**changes: Any) -> Any:
    return replace(SETTINGS, steps=4, guidance_rollout=4.0, checkpoint_every=2, **changes)


def guided(model: Model, x: torch.Tensor, sigma: torch.Tensor, prompt: str) -> list[torch.Tensor]:
    """diffusers' velocity at a prompt, and guided by 4."""
    conds = [model.text._masked([text]) for text in (prompt, "")]  # type: ignore[attr-defined]
    v, v_n = (diffusers_velocity(model.tree, CHROMA, x, sigma, c, None) for c in conds)
    return [v, v_n + 4.0 * (v - v_n)]


def test_states_are_drawn_with_the_negative_prompt_and_losses_are_not() -> None:
    trainer = make_trainer(settings(), model=make_chroma())
    states = trainer._roll_out(trainer.encode()).erase
    for row in (0, 2):
        text = trainer.plan.erase[row].sentence.text
        for step in range(2):
            x, sigma = states.latents[row, step][None].float(), states.sigmas[step][None]
            v, walked = guided(trainer.model, x, sigma, text)
            torch.testing.assert_close(states.target[row, step], v[0], atol=1e-4, rtol=1e-4)
            after = x + (states.sigmas[step + 1] - sigma) * walked
            moved = states.latents[row, step + 1].float() - after[0]
            assert moved.norm() < 0.01 * after.norm()  # kept in bfloat16
    assert trainer.guidance is None


def test_adversaries_are_read() -> None:
    """Where the prompt's own padding is not."""
    cond = make_chroma().text.encode(["a tiger", "a tiger in the snow"])
    words, mask = cond.context[:, 1], cond.mask
    joined = Adversaries(words, cond, 2, 0, torch.device("cpu")).join(cond)
    assert mask is not None and joined.mask is not None
    assert joined.mask[:, -TOKENS:].all() and not mask[:, -TOKENS:].any()
    assert torch.equal(joined.mask[:, :-TOKENS], mask[:, :-TOKENS])
    assert joined.negative is cond.negative and joined.pooled is None


def test_its_presets_are_said_to_be_unmeasured() -> None:
    model = make_chroma()
    method = find_method("eraseanything")
    assert method.suited(model, CONCEPTS).guidance_rollout == 4.0
    assert method.suited(model, CONCEPTS, "fast").steps == 100
    presets = model.family.presets["eraseanything"].values()
    assert not any(preset["measured"] for preset in presets)
