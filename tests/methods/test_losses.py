"""The losses against numbers worked out by hand, numpy formulas and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from erase_core.methods.eraseanything.losses import (
    attention_loss,
    esd_loss,
    esd_target,
    preserve_loss,
    rsc_loss,
)


def test_esd_target_by_hand() -> None:
    null, concept = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.5])
    assert esd_target(null, concept, eta=1.0).tolist() == [-1.0, 1.5]
    assert esd_target(null, concept, eta=0.0).tolist() == null.tolist()
    assert esd_target(null, concept, eta=2.0).tolist() == [-3.0, 1.0]


def test_esd_and_preserve_losses_by_hand() -> None:
    student, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert esd_loss(student, target).item() == pytest.approx((4 + 9) / 4)
    assert preserve_loss(student, target).item() == pytest.approx((4 + 9) / 4)


def test_velocity_losses_are_computed_in_float32() -> None:
    student = torch.tensor([1.0], dtype=torch.bfloat16)
    target = torch.tensor([1.001])
    assert esd_loss(student, target).item() == pytest.approx(1e-6, rel=1e-2)
    assert esd_target(student, student, 1.0).dtype == torch.float32


def test_esd_gradient_matches_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, null, concept = torch.randn(3, 2, 4, 3, 3, dtype=torch.float64, generator=generator)
    student.requires_grad_()
    esd_loss(student, esd_target(null, concept, 1.5)).backward()
    wanted = 2 * (student - (2.5 * null - 1.5 * concept)) / student.numel()
    torch.testing.assert_close(student.grad, wanted.detach())


def test_attention_loss_is_a_mean_over_heads_queries_blocks_and_batch() -> None:
    attention = torch.arange(24.0).reshape(2, 2, 2, 3) / 24
    assert attention_loss(attention).item() == pytest.approx(sum(range(24)) / 24 / 24)
    finer = attention.repeat_interleave(4, dim=-1)
    assert attention_loss(finer).item() == pytest.approx(attention_loss(attention).item())


def test_rsc_by_hand() -> None:
    """Unit features at known angles: u.s = 0.6, u.r1 = 0.8, u.r2 = 0; s.r1 = 0, s.r2 = 0.8."""
    u, s = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]) * 3
    irrelevant = [torch.tensor([[0.8, -0.6]]) * 0.5, torch.tensor([[0.0, 1.0]])]
    e = math.exp
    text = -math.log((e(0.8) + e(0)) / (e(0.6) + e(0.8) + e(0)))
    assert rsc_loss(u, s, irrelevant, tau=1.0).item() == pytest.approx(text, rel=1e-6)
    official = math.log(e(0.6) / (e(0.6) + e(0.0) + e(0.8)))
    found = rsc_loss(u, s, irrelevant, tau=1.0, variant="official").item()
    assert found == pytest.approx(official, rel=1e-6)


def _numpy_rsc(u: np.ndarray, s: np.ndarray, r: list[np.ndarray], tau: float, text: bool) -> float:
    def unit(x: np.ndarray) -> np.ndarray:
        return x.ravel() / np.sqrt((x**2).sum())

    losses = []
    for b in range(u.shape[0]):
        anchor = unit(u[b] if text else s[b])
        pair = np.exp(unit(u[b]) @ unit(s[b]) / tau)
        others = sum(np.exp(anchor @ unit(k[b]) / tau) for k in r)
        losses.append(-np.log(others / (pair + others)) if text else np.log(pair / (pair + others)))
    return float(np.mean(losses))


@pytest.mark.parametrize("variant", ["text", "official"])
def test_rsc_value_and_gradient_against_numpy(variant: str) -> None:
    rng = np.random.default_rng(0)
    shape, tau = (2, 1, 2, 5), 0.07
    u, s, *r = (rng.random(shape) for _ in range(5))
    concept = torch.tensor(u, requires_grad=True)
    loss = rsc_loss(concept, torch.tensor(s), [torch.tensor(k) for k in r], tau, variant)  # type: ignore[arg-type]
    loss.backward()
    text = variant == "text"
    assert loss.item() == pytest.approx(_numpy_rsc(u, s, r, tau, text), rel=1e-9)
    assert concept.grad is not None
    for index in [(0, 0, 0, 0), (0, 0, 1, 3), (1, 0, 0, 2), (1, 0, 1, 4)]:
        step = np.zeros(shape)
        step[index] = 1e-6
        slope = (
            _numpy_rsc(u + step, s, r, tau, text) - _numpy_rsc(u - step, s, r, tau, text)
        ) / 2e-6
        assert concept.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("variant", ["text", "official"])
def test_descending_rsc_pushes_the_concept_away_from_its_synonym(variant: str) -> None:
    generator = torch.Generator().manual_seed(1)
    u, s, a, b = torch.rand(4, 1, 1, 2, 8, generator=generator)
    concept = u.clone().requires_grad_()
    rsc_loss(concept, s, [a, b], 0.07, variant).backward()  # type: ignore[arg-type]
    assert concept.grad is not None

    def cosine(x: torch.Tensor) -> float:
        return torch.cosine_similarity(x.flatten(), s.flatten(), dim=0).item()

    assert cosine(u - 0.1 * concept.grad) < cosine(u)


def test_rsc_ignores_the_size_of_a_feature() -> None:
    generator = torch.Generator().manual_seed(2)
    u, s, a = torch.rand(3, 2, 1, 2, 8, generator=generator)
    whole, half = rsc_loss(u, s, [a], 0.07), rsc_loss(u / 2, s * 3, [a / 5], 0.07)
    torch.testing.assert_close(whole, half)
