"""Guards: what they take out, when, and what a file of theirs holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONCEPTS, make_model, same
from torch import Tensor

from erase_core.concepts.sets import Concept, ConceptSet
from erase_core.erasers.guards.base import Guard, find_guard, guards
from erase_core.erasers.guards.dve import DveSettings, lean, take_out
from erase_core.erasers.guards.gate import (
    Gated,
    Opening,
    VelocityGateSettings,
    WordGate,
    WordGateSettings,
    word_gate,
)
from erase_core.erasers.guards.safree import SafreeSettings, Space, spaces
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.cases import CHOICES
from erase_core.models.base import Conditioning
from erase_core.models.sampling import sigmas

PROMPTS = ["a tiger in the snow", "a rose and a house"]
NOISE = make_model().noise([1, 2])


PLAIN = {"words": False, "every": 1}  # DVE by the paper: each step for itself, whatever was asked


def guard(**settings: object) -> Guard:
    told = {"anchor": "lion", **PLAIN, **settings}
    return Guard(find_guard("dve"), CONCEPTS, DveSettings.from_dict(told))


def dve(strength: float = 1.0, **more: Any) -> DveSettings:
    return DveSettings(strength=strength, **{**PLAIN, **more})


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_taken_out_is_the_part_along_the_concept_measured_from_the_anchor() -> None:
    concept, anchor = normal(0, 3, 4, 2, 2), normal(1, 3, 4, 2, 2)
    across = normal(2, 3, 4, 2, 2)
    across -= lean(across + anchor, concept, anchor).view(-1, 1, 1, 1) * (concept - anchor)
    wanted = torch.tensor([0.8, -0.5, 0.2])
    ours = anchor + across + wanted.view(-1, 1, 1, 1) * (concept - anchor)
    torch.testing.assert_close(lean(ours, concept, anchor), wanted)
    left, part = take_out(ours, concept, anchor, dve(threshold=0.25))
    torch.testing.assert_close(part, torch.tensor([0.8, 0.0, 0.0]))
    torch.testing.assert_close(left[0], (anchor + across)[0])
    assert torch.equal(left[1:], ours[1:])


def test_velocities_and_noise_free_predictions_lean_alike() -> None:
    x, sigma = normal(3, 2, 4, 2, 2), 0.7
    v, concept, anchor = normal(4, 2, 4, 2, 2), normal(5, 2, 4, 2, 2), normal(6, 2, 4, 2, 2)
    clean = [x - sigma * each for each in (v, concept, anchor)]
    torch.testing.assert_close(lean(v, concept, anchor), lean(*clean))
    left, _ = take_out(v, concept, anchor, dve(0.6))
    torch.testing.assert_close(x - sigma * left, take_out(*clean, dve(0.6))[0])


def test_equal_ends_take_nothing() -> None:
    v, same = normal(0, 2, 4), normal(1, 2, 4)
    assert torch.equal(take_out(v, same, same, dve())[0], v)


def test_orthogonal_directions_commute() -> None:
    v, anchor = normal(0, 2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    first, second = torch.zeros_like(anchor), torch.zeros_like(anchor)
    first[:, :2], second[:, 2:] = normal(1, 2, 2, 2, 2), normal(2, 2, 2, 2, 2)
    one = take_out(take_out(v, first, anchor, dve())[0], second, anchor, dve())[0]
    other = take_out(take_out(v, second, anchor, dve())[0], first, anchor, dve())[0]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_strength_0_is_the_same_model() -> None:
    model = make_model()
    assert guard(strength=0.0).wrap(model) is model


@pytest.mark.parametrize(("start", "end", "guarded"), [(0, 1, 4), (0, 0.5, 3), (0.6, 1, 1)])
def test_a_guarded_picture_is_the_formula_step_by_step(
    start: float, end: float, guarded: int
) -> None:
    model, steps = make_model(), 4
    drawn = guard(strength=0.7, start=start, end=end).wrap(model)
    cond = model.text.encode(PROMPTS)
    concept, anchor = (model.text.encode([word] * 2) for word in ("tiger", "lion"))
    levels, x, acted = sigmas(steps, model.shift_mu), NOISE.clone(), 0
    for index, (sigma, after) in enumerate(zip(levels, levels[1:], strict=False)):
        with torch.no_grad():
            v, v_c, v_a = (model.velocity(x, sigma, c, 3.5) for c in (cond, concept, anchor))
        if start <= index / steps <= end:
            acted += 1
            for row in range(2):
                d = v_c[row] - v_a[row]
                share = ((v[row] - v_a[row]) * d).sum() / (d * d).sum()
                v[row] -= 0.7 * share.clamp_min(0) * d
        x = x + (after - sigma) * v
    assert acted == guarded
    torch.testing.assert_close(drawn.sample(cond, NOISE, steps=steps), x)
    assert not torch.allclose(model.sample(cond, NOISE, steps=steps), x, atol=1e-3)


@pytest.mark.parametrize(("told", "word"), [("lion", "lion"), ("", "dog")])
def test_prompts_that_name_the_concept_lose_a_least_part_of_it_by_a_direction_that_is_kept(
    told: str, word: str
) -> None:
    """From a relative where no anchor is told; others stay bit for bit and cost nothing."""
    model, steps = make_model(), 5
    drawn = guard(words=True, least=3.0, every=2, strength=0.5, anchor=told).wrap(model)
    cond = model.text.encode(PROMPTS)
    concept, anchor = (model.text.encode([w]) for w in ("tiger", word))
    levels, x = sigmas(steps, model.shift_mu), NOISE[:1].clone()
    for index, (sigma, after) in enumerate(zip(levels, levels[1:], strict=False)):
        with torch.no_grad():
            v = model.velocity(x, sigma, cond.select([0]), 3.5)
            if index % 2 == 0:
                v_c, v_a = (model.velocity(x, sigma, c, 3.5) for c in (concept, anchor))
        d = v_c - v_a
        share = ((v - v_a) * d).sum() / (d * d).sum()
        x = x + (after - sigma) * (v - 0.5 * share.clamp_min(3.0) * d)
    found = drawn.sample(cond, NOISE, steps=steps)
    torch.testing.assert_close(found[:1], x)
    torch.testing.assert_close(drawn.sample(cond.select([0]), NOISE[:1], steps=steps), x)
    plain_rows = model.sample(cond, NOISE, steps=steps)
    assert torch.equal(found[1], plain_rows[1]) and not torch.allclose(found[0], plain_rows[0])


def test_a_prompt_without_the_concept_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = make_model(), Counter[str]()
    drawn = guard(words=True, every=4).wrap(model)
    asked = counting(calls, "velocity", type(model).velocity)
    monkeypatch.setattr(type(model), "velocity", asked)
    drawn.sample(model.text.encode(PROMPTS[1:]), NOISE[:1], steps=8)
    assert calls["velocity"] == 8
    drawn.sample(model.text.encode(PROMPTS[:1]), NOISE[:1], steps=8)
    assert calls["velocity"] == 8 + 8 + 2 * 2  # two directions of two passes serve eight steps


def test_a_batch_is_its_rows() -> None:
    model = guard().wrap(make_model())
    cond = model.text.encode(PROMPTS)
    together = model.sample(cond, NOISE, steps=3)
    apart = [model.sample(cond.select([i]), NOISE[i : i + 1], steps=3) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_guards_act_from_first_to_last() -> None:
    model = make_model()
    cond = model.text.encode(PROMPTS)
    x, sigma = NOISE, torch.tensor(0.8)
    rose = replace(guard(), concepts=ConceptSet((Concept("rose"),)))
    with torch.no_grad():
        once = guard().wrap(model).velocity(x, sigma, cond, 3.5)
        concept, anchor = (model.velocity(x, sigma, model.text.encode([w] * 2), 3.5)
                           for w in ("rose", "lion"))  # fmt: skip
        wanted, _ = take_out(once, concept, anchor, dve())
        both = rose.wrap(guard().wrap(model)).velocity(x, sigma, cond, 3.5)
    torch.testing.assert_close(both, wanted)


@pytest.mark.parametrize("name", guards())
def test_a_file_holds_all_of_a_guard(name: str, tmp_path: Path) -> None:
    method = find_guard(name)
    tensors = LORA.tensors() if method.eraser else {}
    made = Guard(method, CONCEPTS, method.settings(strength=0.5, end=0.4), tensors)
    made.save(tmp_path / "guard.json")
    assert Guard.load(tmp_path / "guard.json") == made
    value = json.loads((tmp_path / "guard.json").read_text())
    assert value["version"] == 2 and value["guard"] == name
    assert value.get("eraser") == ("guard.guard.safetensors" if method.eraser else None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 3}, "no guard of version 2"),
        ({"guard": "wall"}, "There is no guard wall; choose from"),
        ({"settings": {"strenght": 1}}, "did you mean strength?"),
        ({"settings": {"strength": -1}}, "from 0"),
        ({"settings": []}, "must be an object"),
        ({"concepts": {"version": 1, "concepts": []}}, "name at least one"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "guard.json"
    path.write_text(json.dumps(guard().to_json() | change))
    with pytest.raises(EraseError, match=words) as error:
        Guard.load(path)
    assert str(path) in str(error.value)


LORA = EraserLora.create(make_model().slots(("text.q", "text.k")), rank=2, seed=1)
for _parameter in LORA.parameters():
    _parameter.data = normal(5, *_parameter.shape)


def gated(name: str, **settings: object) -> Guard:
    method = find_guard(name)
    return Guard(method, CONCEPTS, method.settings.from_dict(settings), LORA.tensors())


def test_a_gate_without_an_eraser_is_refused() -> None:
    with pytest.raises(EraseError, match="name the eraser's file"):
        Guard(find_guard("word-gate"), CONCEPTS, WordGateSettings())


def test_a_gates_file_has_its_eraser_beside_it(tmp_path: Path) -> None:
    replace(gated("word-gate"), metadata={"erase.base": "tiny"}).save(tmp_path / "gate.json")
    found = Guard.load(tmp_path / "gate.json")
    assert same(dict(found.tensors), LORA.tensors()) and found.metadata == {"erase.base": "tiny"}
    (tmp_path / "gate.guard.safetensors").unlink()
    with pytest.raises(
        EraseError, match=r"gate\.json: There is no file .*gate\.guard\.safetensors"
    ):
        Guard.load(tmp_path / "gate.json")


def test_a_guards_file_takes_no_eraser_that_it_does_not_name(tmp_path: Path) -> None:
    for name in ("guard.safetensors", "guard.guard.safetensors"):
        LORA.save(tmp_path / name)
    guard().save(tmp_path / "guard.json")
    assert not Guard.load(tmp_path / "guard.json").tensors
    (tmp_path / "guard.json").write_text(json.dumps(gated("word-gate").to_json()))
    with pytest.raises(EraseError, match="name the eraser's file"):
        Guard.load(tmp_path / "guard.json")


@pytest.mark.parametrize("name", ["../gate.guard.safetensors", "tiger.safetensors", 3])
def test_a_guards_eraser_lies_beside_it(name: object, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text(json.dumps(gated("word-gate").to_json() | {"eraser": name}))
    with pytest.raises(EraseError, match="eraser must be the name of a file beside it"):
        Guard.load(tmp_path / "gate.json")


def test_files_of_the_first_version_still_load(tmp_path: Path) -> None:
    LORA.save(tmp_path / "old.safetensors")
    for made in (guard(), gated("word-gate")):
        (tmp_path / "old.json").write_text(json.dumps(made.to_json() | {"version": 1}))
        found = Guard.load(tmp_path / "old.json")
        assert found == made and bool(found.tensors) == made.method.eraser


def test_the_word_gate_erases_where_the_concept_is_named_and_nowhere_else() -> None:
    model = make_model()
    cond = model.text.encode(["a tiger in the snow", "a rose and a house", "a lion"])
    x, sigma = NOISE[[0, 1, 0]], torch.tensor(0.8)
    with torch.no_grad():
        base, erased = (model.velocity(x, sigma, cond, 3.5, e) for e in (None, LORA))
        found = gated("word-gate").wrap(model).velocity(x, sigma, cond, 3.5)
        half = gated("word-gate", strength=0.5).wrap(model).velocity(x, sigma, cond, 3.5)
        weaker = model.velocity(x, sigma, cond, 3.5, LORA.scaled(0.5))
    assert (base - erased)[0].abs().max() > 1e-3
    torch.testing.assert_close(found[0], erased[0])
    torch.testing.assert_close(half[0], weaker[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[1:], base[1:])


def test_one_strength_a_row() -> None:
    model = make_model()
    cond, x = model.text.encode(PROMPTS), NOISE
    strength = torch.tensor([0.25, 1.0])
    with torch.no_grad():
        found = model.velocity(x, torch.tensor(0.8), cond, 3.5, Gated(LORA, strength))
        for row, share in enumerate(strength.tolist()):
            own = cond.select([row])
            alone = model.velocity(
                x[row : row + 1], torch.tensor(0.8), own, 3.5, LORA.scaled(share)
            )
            torch.testing.assert_close(found[row], alone[0], rtol=1e-4, atol=1e-5)


def test_the_velocity_gate_opens_by_the_share_of_the_concepts_own_change() -> None:
    settings = VelocityGateSettings(low=0.5, high=1.0)
    base, erased = torch.zeros(3, 4), torch.tensor([[2.0] * 4, [3.0] * 4, [8.0] * 4])
    ends = [(torch.zeros(3, 4), torch.full((3, 4), 4.0))]
    opening = Opening(settings)
    torch.testing.assert_close(opening.look(base, erased, ends), torch.tensor([0.0, 0.5, 1.0]))
    opening.look(base, base, ends)  # the mean of two looks
    torch.testing.assert_close(opening.strength(), torch.tensor([0.0, 0.0, 1.0]))


def test_a_velocity_gate_decides_in_the_first_steps_and_holds_to_it() -> None:
    model = make_model()
    cond = model.text.encode(["tiger", "a rose and a house"])
    open_, shut = (
        gated("velocity-gate", low=0.0, high=0.0, look=0.3),
        gated("velocity-gate", low=9, high=9),
    )
    erased = model.sample(cond, NOISE, LORA, steps=4)
    drawn = open_.wrap(model)
    for _ in range(2):  # a second picture begins anew
        torch.testing.assert_close(drawn.sample(cond, NOISE, steps=4), erased, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        shut.wrap(model).sample(cond, NOISE, steps=4), model.sample(cond, NOISE, steps=4)
    )


@pytest.mark.parametrize("name", ["fox", "dog", "snail", "umbrella", "helicopter", "pizza"])
def test_miniflux_encoder_tells_a_concept_from_its_kin(name: str) -> None:
    """Things of the half that the gate's limits were not chosen on (tools/bench/wordgate.py)."""
    text, judge = miniflux.load_text(), RecogniserJudge()
    assert CHOICES["thing"].index(name) % 2 == 1
    concept = judge.concept(name)
    (gate,) = word_gate(text, ConceptSet((concept,)))
    found = {
        role: gate.strength(text.encode([question.prompt for question in asked]).context)
        for role, asked in judge.exam(ConceptSet((concept,)), 12).roles.items()
    }
    assert not torch.cat([found["near"], found["other"]]).any()
    named = torch.cat([found[role] for role in ("erased", "seen", "held_out", "companion")])
    assert named.mean() > 0.95


def hat(vectors: Tensor) -> Tensor:
    """The projector onto what the rows of vectors (N, D) span, as the paper writes it."""
    return vectors.T @ torch.linalg.inv(vectors @ vectors.T) @ vectors


def test_all_tokens_of_a_prompt_that_names_the_concept_leave_its_subspace() -> None:
    names, kept = [normal(0, 1, 16), normal(1, 2, 16)], [normal(2, 5, 16), normal(3, 4, 16)]
    pooled, pooled_kept = normal(4, 2, 8), normal(5, 3, 8)
    space = Space(names, kept, pooled, pooled_kept)
    mean = torch.cat(kept).mean(0)
    concept = hat(torch.cat(names) - mean)
    context = normal(6, 2, 6, 16)
    context[0, 2] = names[0][0] + 0.2 * normal(7, 16)
    both = normal(8, 2, 8)
    found = space.clean(context, both, SafreeSettings(strength=0.7))
    assert found.near.nonzero().tolist() == [[0, 2]]
    off = 0.7 * (context[0] - mean) @ concept
    torch.testing.assert_close(found.context[0], context[0] - off, rtol=1e-4, atol=1e-4)
    assert found.pooled is not None
    middle = pooled_kept.mean(0)
    left = both[0] - 0.7 * (both[0] - middle) @ hat(pooled - middle)
    torch.testing.assert_close(found.pooled[0], left, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.context[1], context[1]) and torch.equal(found.pooled[1], both[1])
    moved = torch.cosine_similarity(context[0].mean(0), found.context[0].mean(0), dim=0)
    torch.testing.assert_close(found.share[0], (2 * torch.sigmoid(1 - moved)).clamp(max=1))
    assert found.share[1] == 0


def test_safree_moves_a_prompt_for_its_share_of_the_steps() -> None:
    model, method = make_model(), find_guard("safree")
    cond = model.text.encode(PROMPTS)
    settings = SafreeSettings(reach=0.6)  # so that some of four steps are left
    (space,) = spaces(model.text, CONCEPTS)
    found = space.clean(cond.context, cond.pooled, settings)
    assert found.pooled is not None and found.share[1] == 0
    drawn = Guard(method, CONCEPTS, settings).wrap(model).sample(cond, NOISE, steps=4)
    clean, levels, x = Conditioning(found.context, found.pooled), sigmas(4, model.shift_mu), NOISE
    for index, (sigma, after) in enumerate(zip(levels, levels[1:], strict=False)):
        with torch.no_grad():
            v = model.velocity(x, sigma, clean if index / 4 <= found.share[0] else cond, 3.5)
        x = x + (after - sigma) * v
    torch.testing.assert_close(drawn, x)
    plain = model.sample(cond, NOISE, steps=4)
    assert torch.equal(drawn[1], plain[1]) and not torch.equal(drawn[0], plain[0])


def test_what_all_steps_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAFREE cleans a batch's prompts once, both read them once, DVE asks for its anchor once a
    step, however many concepts there are."""
    model, calls = make_model(), Counter[str]()
    for kind, name in ((Space, "clean"), (WordGate, "strength")):
        monkeypatch.setattr(kind, name, counting(calls, name, getattr(kind, name)))
    noise = NOISE[:1]
    both = ConceptSet.together((*CONCEPTS.concepts, Concept("rose")))
    for guarded in (Guard(find_guard("safree"), CONCEPTS, SafreeSettings()), gated("word-gate")):
        guarded.wrap(model).sample(model.text.encode(["a tiger"]), noise, steps=4)
    assert calls == {"clean": 1, "strength": 2}
    model_dve = Guard(find_guard("dve"), both, dve()).wrap(model)
    asked = counting(calls, "velocity", type(model).velocity)
    monkeypatch.setattr(type(model), "velocity", asked)
    model_dve.sample(model.text.encode(["a tiger"]), noise, steps=4)
    assert calls["velocity"] == 4 * 4  # ours, the anchor's, two concepts'


def counting(calls: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which from now on is counted."""

    @wraps(function)
    def counted(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        return function(*args, **options)

    return counted
