"""The sampler equals what ComfyUI's KSampler computes (euler, simple)."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from erase_core.errors import EraseError
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import DEV_SHIFT
from erase_core.models.sampling import Latents, euler, sigmas

LATENTS = FAMILY.latents


@pytest.mark.parametrize("steps", [1, 4, 16, 28, 37])
def test_shifted_sigmas_follow_the_formula(steps: int) -> None:
    levels = sigmas(steps, DEV_SHIFT)
    e = math.exp(1.15)
    for index, sigma in enumerate(levels[:-1].tolist()):
        t = (10_000 - int(index * 10_000 / steps)) / 10_000
        assert sigma == pytest.approx(e / (e + 1 / t - 1), rel=1e-6)
    assert levels.shape == (steps + 1,) and levels.dtype == torch.float32
    assert levels[0] == 1 and levels[-1] == 0


def test_four_steps_as_the_host_prints_them() -> None:
    dev = [1.0, 0.9045308, 0.7595109, 0.5128441, 0.0]  # ComfyUI 0.28.0
    assert sigmas(4, DEV_SHIFT).tolist() == pytest.approx(dev, abs=2e-7)
    assert sigmas(4, None).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sigmas(3, None).tolist() == pytest.approx([1.0, 0.667, 0.334, 0.0], abs=1e-7)


@pytest.mark.parametrize("size", [(512, 512), (1024, 1024), (768, 512)])
def test_sigmas_with_diffusers_shift_equal_its_scheduler(size: tuple[int, int]) -> None:
    mu = calculate_shift(LATENTS.tokens(*size))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1 - i / 20 for i in range(20)], mu=mu)
    torch.testing.assert_close(sigmas(20, mu), scheduler.sigmas, rtol=1e-5, atol=1e-7)


def test_the_shift_at_1024_px_is_comfyuis() -> None:
    assert calculate_shift(LATENTS.tokens(1024, 1024)) == pytest.approx(DEV_SHIFT)


def test_noise_is_ksamplers() -> None:
    torch.manual_seed(2**40 + 5)
    expected = torch.randn([1, 16, 5, 8], dtype=torch.float32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = LATENTS.noise([7, 2**40 + 5], 40, 64)
    assert torch.equal(drawn[1:], expected)
    assert drawn[0].std() > 0.9 and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [(0, 64), (60, 64), (64, -8)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(EraseError, match="multiples of 8"):
        LATENTS.noise([0], *size)


def test_no_steps_are_refused() -> None:
    with pytest.raises(EraseError, match="at least 1"):
        sigmas(0, None)


def test_euler_follows_a_straight_flow_exactly() -> None:
    clean, start = LATENTS.noise([0, 1], 16, 24).double().unbind()
    seen = []
    end = euler(
        lambda x, sigma: (x - clean) / sigma,
        start,
        sigmas(7, DEV_SHIFT).double(),
        lambda index, x, v: seen.append((index, x, v)),
    )
    torch.testing.assert_close(end, clean)
    assert [index for index, _, _ in seen] == list(range(7))
    for (index, x, v), sigma in zip(seen, sigmas(7, DEV_SHIFT).double(), strict=False):
        torch.testing.assert_close(x, clean + sigma * (start - clean))
        torch.testing.assert_close(v, start - clean, msg=f"velocity at step {index}")


def test_euler_is_of_first_order() -> None:
    """dx/dsigma = x from 1 to 0 ends at x / e; halving the steps doubles the error."""
    errors = []
    for steps in (100, 200):
        end = euler(
            lambda x, _: x, torch.ones(1).double(), torch.linspace(1, 0, steps + 1).double()
        )
        errors.append(abs(end.item() - math.exp(-1)))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_latents_lie_as_the_family_says() -> None:
    assert LATENTS.shape(64, 96) == (16, 8, 12)
    assert LATENTS.grid(72, 96) == (5, 6)  # the last row is padded
    packed = Latents(channels=128, scale=16, patch=1)  # as FLUX.2 has them
    assert packed.shape(64, 96) == (128, 4, 6) and packed.tokens(64, 96) == 24
    with pytest.raises(EraseError, match="multiples of 16"):
        packed.noise([0], 24, 32)
