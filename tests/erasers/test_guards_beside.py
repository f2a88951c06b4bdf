"""IRECE, a negative prompt and NAG: each against its formula written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import CONCEPTS, make_model
from torch import Tensor, nn

from erase_core.erasers.guards.base import Guard, find_guard
from erase_core.erasers.guards.irece import IreceSettings, change, mask
from erase_core.erasers.guards.negative import NagSettings, NegativeSettings, normalised
from erase_core.errors import EraseError
from erase_core.models.base import Conditioning, Model, Probe
from erase_core.models.sampling import sigmas

PROMPTS = ["a picture", "a rose and a house"]
MODEL = make_model()
NOISE = MODEL.noise([1, 2])


def wrapped(name: str, settings: object) -> Model:
    return Guard(find_guard(name), CONCEPTS, settings).wrap(MODEL)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_mask_covers_the_latents_of_places_with_enough_attention() -> None:
    attention = torch.tensor([[[1.0, 0.4], [0.5, 0.1]], [[0.2, 0.2], [0.05, 0.2]]])
    found = mask(attention, 0.5, (4, 3))  # an odd side: the last place is half outside
    assert found[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    assert found[1, 0].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1]]


def test_what_is_begun_anew_is_its_surroundings_and_fresh_noise() -> None:
    x, clean, sigma = normal(0, 2, 3, 4, 4), normal(1, 2, 3, 4, 4), torch.tensor(0.6)
    where = torch.zeros(2, 1, 4, 4)
    where[:, :, :2] = 1
    n = change(x, clean, sigma, where, IreceSettings(seed=5))
    noise = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5))
    fill = clean[:, :, 2:].mean((2, 3), keepdim=True)
    torch.testing.assert_close((x + 0.6 * n)[:, :, :2], (0.4 * fill + 0.6 * noise)[:, :, :2])
    assert not n[:, :, 2:].any()


def test_irece_ends_where_the_changed_picture_would() -> None:
    """The changed state walked by Euler's steps of its own, from the step where it is changed."""
    steps, start = 5, 0.4
    cond = MODEL.text.encode(PROMPTS)
    drawn = wrapped("irece", IreceSettings(start=start, limit=0.8, seed=3))
    levels, x = sigmas(steps, MODEL.shift_mu), NOISE.clone()
    tiger = MODEL.text.encode(["tiger"] * 2)
    tokens = MODEL.text.token_mask("tiger", "tiger").expand(2, 1, -1)
    for index, (sigma, after) in enumerate(zip(levels, levels[1:], strict=False)):
        with torch.no_grad():
            if index == 2:
                probe = Probe(tuple(range(MODEL.config.depth)), tokens)
                share = MODEL.attention(x, sigma, tiger, 3.5, probe)[:, :, 0].mean((1, 2))
                places = share.reshape(2, x.shape[2] // 2, x.shape[3] // 2)
                where = (places >= 0.8 * places.amax((1, 2), keepdim=True)).float()[:, None]
                where = nn.functional.interpolate(where, scale_factor=2)
                assert 0 < where.mean() < 1
                clean = x - sigma * MODEL.velocity(x, sigma, cond, 3.5)
                kept = 1 - where
                fill = (clean * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
                noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(3))
                x = x * kept + where * ((1 - sigma) * fill + sigma * noise)
            x = x + (after - sigma) * MODEL.velocity(x, sigma, cond, 3.5)
    found = drawn.sample(cond, NOISE, steps=steps)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(drawn.sample(cond, NOISE, steps=steps), found)  # a second time
    assert not torch.allclose(MODEL.sample(cond, NOISE, steps=steps), x, atol=1e-3)


def test_a_negative_prompt_is_guidance_away_from_the_name() -> None:
    cond, tiger = (MODEL.text.encode(texts) for texts in (PROMPTS, ["tiger"] * 2))
    sigma = torch.tensor(0.7)
    with torch.no_grad():
        v, away = (MODEL.velocity(NOISE, sigma, c, 3.5) for c in (cond, tiger))
        drawn = wrapped("negative", NegativeSettings(scale=3.0, strength=0.5))
        found = drawn.velocity(NOISE, sigma, cond, 3.5)
    torch.testing.assert_close(found, away + 2.5 * (v - away))


def test_nag_is_the_hosts_formula() -> None:
    z, away = normal(0, 2, 5, 8), normal(1, 2, 5, 8)
    found = normalised(z, away, NagSettings(scale=4.0, alpha=0.3, tau=1.2))
    for row in range(2):
        for token in range(5):
            guided = 4 * z[row, token] - 3 * away[row, token]
            ratio = guided.abs().sum() / z[row, token].abs().sum()
            limited = guided * min(float(ratio), 1.2) / ratio
            torch.testing.assert_close(found[row, token], 0.3 * limited + 0.7 * z[row, token])


def test_nag_acts_on_image_tokens_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against attention itself changed: blocks call it once each, text first."""
    cond, tiger = (MODEL.text.encode(texts) for texts in (PROMPTS, ["tiger"] * 2))
    sigma, settings = torch.tensor(0.7), NagSettings()
    plain = nn.functional.scaled_dot_product_attention
    text = cond.context.shape[1]

    def changed(*args: Tensor, **more: object) -> Tensor:
        out = plain(*args, **more)  # (2 B, heads, T, d), the names in the second half
        image = out[:, :, text:].transpose(1, 2).flatten(2)
        half = len(image) // 2
        anew = normalised(image[:half], image[half:], settings).repeat(2, 1, 1)
        anew = anew.unflatten(2, (out.shape[1], -1)).transpose(1, 2)
        return torch.cat([out[:, :, :text], anew], 2)

    with torch.no_grad():
        found = wrapped("nag", settings).velocity(NOISE, sigma, cond, 3.5)
        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", changed)
        both = Conditioning.cat([cond, tiger])
        wanted = MODEL.velocity(NOISE.repeat(2, 1, 1, 1), sigma, both, 3.5)[:2]
        monkeypatch.undo()
        untouched = MODEL.velocity(NOISE, sigma, cond, 3.5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, untouched, atol=1e-3)


def test_nag_refuses_other_blocks() -> None:
    with pytest.raises(EraseError, match="NAG needs blocks as Flux has them"):
        Guard(find_guard("nag"), CONCEPTS, NagSettings()).wrap(replace(MODEL, tree=nn.Linear(2, 2)))
