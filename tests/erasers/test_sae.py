"""Sparse features of text states: what is learned, whose they are, and what shutting does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CONCEPTS, make_model, same
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.guards.base import Guard, find_guard
from erase_core.erasers.guards.gate import word_gate
from erase_core.erasers.guards.sae import (
    Features,
    Prompts,
    SaeSettings,
    choose,
    fit,
    learn,
    loss,
    nested,
    sparse,
)
from erase_core.errors import EraseError
from erase_core.models.base import Conditioning

QUICK = SaeSettings(features=64, active=4, steps=150, lr=0.01)
PROMPTS = ["a tiger in the snow", "a rose and a house"]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def learned() -> dict[str, Tensor]:
    return learn(make_model().text.encode, CONCEPTS, QUICK)


def test_the_largest_features_are_kept() -> None:
    found = sparse(torch.tensor([[3.0, -1.0, 2.0, 5.0], [-3.0, -1.0, -2.0, 0.5]]), 2)
    assert found.tolist() == [[3, 0, 0, 5], [0, 0, 0, 0.5]]


def test_the_first_features_must_give_states_back_as_all_do() -> None:
    assert nested(64) == [8, 16, 32, 64]
    u, z, decode = normal(0, 5, 6), normal(1, 5, 16).relu(), normal(2, 16, 6)
    size = (u**2).sum(1).mean()
    parts = [((u - z[:, :n] @ decode[:n]) ** 2).sum(1).mean() / size for n in (2, 4, 8, 16)]
    torch.testing.assert_close(loss(u, z, decode), torch.stack(parts).mean())


def test_states_of_few_parts_are_explained_by_few_features() -> None:
    """Each state is a sum of two of twelve directions."""
    atoms = torch.nn.functional.normalize(normal(0, 12, 32), dim=1)
    random = torch.Generator().manual_seed(1)
    picked = torch.stack([torch.randperm(12, generator=random)[:2] for _ in range(2000)])
    states = (atoms[picked] * (1 + torch.rand(2000, 2, 1, generator=random))).sum(1)
    tensors = fit(states, SaeSettings(features=24, active=3, steps=600, lr=5e-3))
    features = Features(tensors, 3)
    u = (states - tensors["mean"]) / tensors["scale"]
    left = u - features.fire(states) @ tensors["decode"]
    assert left.square().sum() < 0.1 * u.square().sum()
    assert (features.fire(states) > 0).sum(1).max() <= 3
    torch.testing.assert_close(tensors["decode"].norm(dim=1), torch.ones(24))


def test_features_that_fire_for_the_concept_alone_are_its_own() -> None:
    named = torch.tensor([[1.0, 1.0, 0.0, 4.0], [1.0, 0.0, 0.0, 4.0]])
    swapped = torch.tensor([[1.0, 0.0, 2.0, 1.1], [1.0, 0.0, 0.0, 0.7]])
    assert choose(named, swapped).tolist() == [False, True, False, True]  # 4 / 4.9 > 0.8


def test_shut_features_leave_the_tokens_and_the_pooled_vector_leaves_the_names() -> None:
    tensors = {
        "mean": normal(0, 6), "scale": torch.tensor(2.0), "encode": normal(1, 8, 6),
        "bias": normal(2, 8), "decode": normal(3, 8, 6), 
        "shut": torch.tensor([[1.0, 0, 1, 0, 0, 0, 0, 0]]),
        "pooled.mean.0": normal(4, 5), "pooled.basis.0": torch.linalg.qr(normal(5, 5, 2))[0],
    }  # fmt: skip
    context, pooled = normal(6, 2, 4, 6), normal(7, 2, 5)
    mask = torch.tensor([[True, True, True, False]]).expand(2, 4)
    named = torch.tensor([[True], [False]])
    found, found_pooled = Features(tensors, 3).clean(context, pooled, named, 0.5, mask)
    for token in range(4):
        fired = ((context[0, token] - tensors["mean"]) / 2) @ tensors["encode"].T + tensors["bias"]
        largest = fired.relu().topk(3)
        x = context[0, token].clone()
        for feature, value in zip(largest.indices.tolist(), largest.values, strict=True):
            if feature in (0, 2) and token < 3:
                x -= 2 * 0.5 * 2 * value * tensors["decode"][feature]
        torch.testing.assert_close(found[0, token], x)
    assert not torch.equal(found[0], context[0])
    assert torch.equal(found[1], context[1])
    assert found_pooled is not None and torch.equal(found_pooled[1], pooled[1])
    q = tensors["pooled.basis.0"]
    left = pooled[0] - 0.5 * q @ (q.T @ (pooled[0] - tensors["pooled.mean.0"]))
    torch.testing.assert_close(found_pooled[0], left)


def test_a_guard_draws_with_the_prompts_that_its_features_leave(learned: dict[str, Tensor]) -> None:
    model = make_model()
    cond, noise = model.text.encode(PROMPTS), model.noise([1, 2])
    made = Guard(find_guard("sae"), CONCEPTS, QUICK, learned)
    named = torch.stack(
        [gate.strength(cond.context) > 0 for gate in word_gate(model.text, CONCEPTS)], 1
    )
    assert named.tolist() == [[True], [False]]
    clean = Conditioning(
        *Features(learned, QUICK.active).clean(cond.context, cond.pooled, named, 1.0)
    )
    drawn = made.wrap(model).sample(cond, noise, steps=3)
    assert torch.equal(drawn, model.sample(clean, noise, steps=3))
    plain = model.sample(cond, noise, steps=3)
    assert torch.equal(drawn[1], plain[1]) and not torch.equal(drawn[0], plain[0])


def test_the_same_seed_learns_the_same(learned: dict[str, Tensor], tmp_path: Path) -> None:
    assert same(learn(make_model().text.encode, CONCEPTS, QUICK), learned)
    made = Guard(find_guard("sae"), CONCEPTS, QUICK, learned)
    made.save(tmp_path / "guard.json")
    found = Guard.load(tmp_path / "guard.json")
    assert found == made and same(dict(found.tensors), learned)


def test_no_prompt_that_stays_names_the_concept() -> None:
    prompts = Prompts(CONCEPTS, 0)
    assert all("tiger" in prompt for prompt in prompts.named[0][:3])
    assert not any("tiger" in prompt for prompt in [*prompts.swapped[0], *prompts.everyday])


def test_features_that_tell_nothing_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase_core.erasers.guards.sae.APART", 1.0)
    with pytest.raises(EraseError, match='No feature speaks of "tiger" alone; set more steps'):
        learn(make_model().text.encode, ConceptSet(CONCEPTS.concepts), QUICK)
