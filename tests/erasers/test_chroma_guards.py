"""Guards on a family that draws with a negative prompt, and whose prompts have unread tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TIGER, make_chroma
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.guards.base import Guard, find_guard, guards
from erase_core.erasers.guards.dve import DveSettings, take_out
from erase_core.erasers.guards.gate import word_gate
from erase_core.erasers.guards.safree import SafreeSettings, spaces
from erase_core.erasers.lora import EraserLora
from erase_core.models.base import Conditioning, Model

CONCEPTS = ConceptSet((replace(TIGER, synonyms=()),))
PROMPTS = ["a tiger in the snow", "a rose and a house"]
MODEL = make_chroma()
NOISE = MODEL.noise([1, 2])


def make_lora() -> EraserLora:
    lora = EraserLora.create(MODEL.slots(["text.q", "text.k", "text.v"]), rank=2, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in lora.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return lora


LORA = make_lora()


def make_guard(name: str, **settings: object) -> Guard:
    method = find_guard(name)
    tensors = LORA.tensors() if method.eraser else {}
    return Guard(method, CONCEPTS, method.settings.from_dict(settings), tensors)


def by_hand(model: Model, cond: Conditioning, eraser: EraserLora | None = None) -> Tensor:
    """The guided velocity at NOISE from two passes of the family's forward."""
    assert cond.negative is not None
    level, away = torch.full((2,), 0.8), cond.negative.select([0, 0])
    v, v_n = (
        model.family.forward(model.tree, NOISE, level, c, eraser=eraser).velocity
        for c in (cond, away)
    )
    assert v is not None and v_n is not None
    return v_n + 4.0 * (v - v_n)


@pytest.mark.parametrize("name", guards())
def test_a_guard_changes_the_concepts_picture(name: str) -> None:
    cond = MODEL.text.encode(PROMPTS)
    open_ = {"low": 0.0, "high": 0.0} if name == "velocity-gate" else {}
    drawn = make_guard(name, **open_).wrap(MODEL).sample(cond, NOISE, steps=3)
    plain = MODEL.sample(cond, NOISE, steps=3)
    assert drawn.isfinite().all() and not torch.equal(drawn[0], plain[0])
    off = make_guard(name, **open_, strength=0.0).wrap(MODEL)
    assert torch.equal(off.sample(cond, NOISE, steps=3), plain)


@pytest.mark.parametrize("name", guards())
@torch.no_grad()
def test_a_velocity_that_stands_alone_is_what_it_is_alone(name: str) -> None:
    """An attacker asks at one level of one picture, then at a lower one of another."""
    cond = MODEL.text.encode(PROMPTS)
    levels = torch.tensor([0.9, 0.5])
    half_open = {"low": 0.0, "high": 10.0} if name == "velocity-gate" else {}
    guarded, alone = (make_guard(name, start=0.0, **half_open).wrap(MODEL) for _ in range(2))
    guarded.velocity(NOISE, levels[:1].expand(2), cond, 4.0)
    other = (MODEL.noise([3, 4]), levels[1:].expand(2), cond, 4.0)
    assert torch.equal(guarded.velocity(*other), alone.velocity(*other))


@torch.no_grad()
def test_dve_takes_its_part_out_of_the_guided_velocity() -> None:
    cond = MODEL.text.encode(PROMPTS)
    found = (
        make_guard("dve", anchor="lion", words=False)
        .wrap(MODEL)
        .velocity(NOISE, torch.tensor(0.8), cond, 4.0)
    )
    ends = [by_hand(MODEL, MODEL.text.encode([word] * 2)) for word in ("tiger", "lion")]
    wanted, _ = take_out(by_hand(MODEL, cond), *ends, DveSettings())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_word_gate_opens_for_both_passes() -> None:
    cond, sigma = MODEL.text.encode(PROMPTS), torch.tensor(0.8)
    found = make_guard("word-gate").wrap(MODEL).velocity(NOISE, sigma, cond, 4.0)
    base, erased = by_hand(MODEL, cond), by_hand(MODEL, cond, LORA)
    assert (base - erased)[0].abs().max() > 1e-3
    torch.testing.assert_close(found[0], erased[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(found[1], MODEL.velocity(NOISE, sigma, cond, 4.0)[1])


def garbled(cond: Conditioning) -> Conditioning:
    """The same prompts, with the concept in what nobody reads."""
    assert cond.mask is not None
    tiger = MODEL.text.encode(["tiger"]).context[0, 0]
    return replace(cond, context=torch.where(cond.mask[..., None], cond.context, tiger))


def test_tokens_that_nobody_reads_open_no_gate() -> None:
    (gate,) = word_gate(MODEL.text, CONCEPTS)
    cond = MODEL.text.encode(PROMPTS)
    assert gate.strength(cond.context, cond.mask).tolist() == [1.0, 0.0]
    other = garbled(cond)
    assert gate.strength(other.context, other.mask).tolist() == [1.0, 0.0]
    assert gate.strength(other.context).tolist() == [1.0, 1.0]


def test_tokens_that_nobody_reads_move_no_prompt() -> None:
    (space,) = spaces(MODEL.text, CONCEPTS)
    cond, settings = MODEL.text.encode(PROMPTS), SafreeSettings(reach=0.6)
    plain, other = (space.clean(c.context, None, settings, c.mask) for c in (cond, garbled(cond)))
    assert plain.near.nonzero().tolist() == [[0, 1]]
    assert torch.equal(plain.near, other.near) and torch.equal(plain.share, other.share)
    for row, alone in enumerate(cond.rows()):
        assert cond.mask is not None
        read = plain.context[row][cond.mask[row]]
        torch.testing.assert_close(read, other.context[row][cond.mask[row]])
        torch.testing.assert_close(read, space.clean(alone[None], None, settings).context[0])
    assert not torch.equal(plain.context[0], cond.context[0])
