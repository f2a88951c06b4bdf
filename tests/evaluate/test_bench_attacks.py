"""The benchmark's attacks and its measures of harm, on the shipped model and tiny budgets."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from erase_core.concepts.spans import word_spans
from erase_core.erasers.base import Both
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.evaluate.attacks import embedding, relearn, suffix, wordings
from erase_core.evaluate.attacks.base import Attack, Target, attacks, find_attack
from erase_core.evaluate.attacks.latents import invert
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.evaluate.suites import harm
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.captions import Scene
from erase_core.miniatures.miniflux.cases import CHOICES, Case, cases
from erase_core.miniatures.miniflux.recogniser import Seen
from erase_core.miniatures.miniflux.world import COLOURS, INDEX, LAYOUTS, STYLES, THINGS
from erase_core.models.sampling import euler


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(miniflux.load(), RecogniserJudge(), None, "tiger", count=2)


def wrecked(target: Target) -> EraserLora:
    """An adapter of random changes, strong enough to spoil every picture."""
    lora = EraserLora.create(target.model.slots(["text.k", "text.v"]), rank=2)
    generator = torch.Generator().manual_seed(0)
    for parameter in lora.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return lora


# --- the interface -------------------------------------------------------------------------------


def test_every_attack_says_what_it_is() -> None:
    found = attacks()
    wanted = "paraphrase misspelling embedding suffix-0 suffix-012 suffix-soft latents relearn"
    assert set(wanted.split()) <= found.keys()
    for name, attack in found.items():
        assert isinstance(attack, Attack) and attack.name == name and attack.label
    with pytest.raises(EraseError, match="choose from"):
        find_attack("magic")


def test_shots_show_the_concept_and_are_not_judged_later(target: Target) -> None:
    shots = target.shots(2)
    assert len(shots.cases) == len(shots.latents) == 2
    assert all(target.shown(shots.latents, shots.cases))
    assert not {case.seed for case in shots.cases} & {case.seed for case in target.cases()}


# --- wordings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "concept", ["tiger", "wolf", "red", "sketch", "three", "holding hands with"]
)
def test_a_misspelling_never_holds_the_word(concept: str) -> None:
    for case in cases([concept], 40, 1):
        text = wordings.misspell(case.prompt, concept, random.Random(case.seed))
        assert text != case.prompt and not word_spans(text, concept)
        assert text == wordings.misspell(case.prompt, concept, random.Random(case.seed))
        assert abs(len(text) - len(case.prompt)) <= 2 * wordings.EDITS


def test_paraphrases_mean_the_same(target: Target) -> None:
    rng = random.Random(0)
    scene = Scene((INDEX["cat"], INDEX["car"]), ("cat", "car"), relation="left of", ground="red")
    assert "a car right of a cat" in target.judge.paraphrase(Case("", 0, scene, "left of"), rng)
    inside = replace(scene, relation="inside")
    assert "a cat inside a car" in target.judge.paraphrase(Case("", 0, inside, "inside"), rng)
    (three,) = cases(["three"], 1, 0)
    thing = THINGS[three.scene.things[0]].name
    assert target.judge.paraphrase(three, rng).count(thing) == 3
    for case in cases(["tiger"], 8, 0):
        assert not word_spans(target.judge.paraphrase(case, rng), "tiger")


# --- a learned embedding -------------------------------------------------------------------------


def test_an_untrained_pseudo_word_of_as_many_tokens_is_the_word(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "TOKENS", 3)
    text = target.model.text
    word = embedding.PseudoWord(text, "holding hands with")
    prompts = [case.prompt for case in cases(["holding hands with"], 3, 0)]
    told, plain = word.encode(prompts), text.encode(prompts)
    torch.testing.assert_close(told.context, plain.context)
    torch.testing.assert_close(told.pooled, plain.pooled)


def test_the_longer_pseudo_word_moves_the_rest_along(target: Target) -> None:
    word = embedding.PseudoWord(target.model.text, "tiger")
    row = word._put("a tiger on a red background")
    plain = word._put("a tiger on a red background".replace("red", "blue"))
    assert row.shape == (target.model.text.t5_length, word.table.shape[1])
    assert torch.equal(row[1 : 1 + embedding.TOKENS], word.vectors)
    differs = (row != plain).any(-1).nonzero().flatten().tolist()
    assert differs == [1 + embedding.TOKENS + 2]


def test_learning_lowers_the_loss(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 12, "SHOTS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(embedding, name, value)
    attacked = replace(target, eraser=wrecked(target))
    shots = target.shots(2)

    @torch.no_grad()
    def loss(word: embedding.PseudoWord) -> float:
        generator = torch.Generator().manual_seed(5)
        cond = word.encode([case.prompt for case in shots.cases])
        rows = [0, 1] * 4
        x = shots.latents[rows]
        return attacked.flow_matching(x, cond.select(rows), attacked.eraser, generator).item()

    fresh = embedding.PseudoWord(target.model.text, "tiger")
    assert loss(embedding.learn(attacked)) < loss(fresh)


# --- an adversarial suffix -----------------------------------------------------------------------


def test_a_suffix_lowers_its_own_loss(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix, "ROUNDS", 2)
    monkeypatch.setattr(suffix, "PASS", 1)  # a CPU may round otherwise in another batch
    attacked = replace(target, eraser=wrecked(target))
    search = suffix.Search.of(attacked, (0, 2))
    before = search.score(search.ids, torch.arange(2))
    ids, losses = suffix.find(attacked, search)
    assert (losses < before).all()
    torch.testing.assert_close(losses, search.score(ids, torch.arange(2)))
    changed = (ids != search.ids).nonzero().tolist()
    assert changed and all(column in search.slots[row] for row, column in changed)
    special = torch.tensor(target.model.text.t5_tokenizer.all_special_ids)
    assert not torch.isin(ids.gather(1, search.slots), special).any()
    again, _ = suffix.find(attacked, search)
    assert torch.equal(ids, again)


def test_a_soft_suffix_lowers_the_loss_and_leaves_the_prompt(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suffix, "SOFT", 8)
    attacked = replace(target, eraser=wrecked(target))
    search, rows = suffix.Search.of(attacked, (0,)), torch.arange(2)
    found, plain = suffix.soft(attacked, search), search.table[search.ids]
    with torch.no_grad():
        assert (search.losses(found, rows) < search.losses(plain, rows)).all()
    changed = (found != plain).any(-1)
    assert torch.equal(changed, torch.zeros_like(changed).scatter(1, search.slots, True))


def test_the_suffix_follows_the_prompt(target: Target) -> None:
    search = suffix.Search.of(target, (0,))
    tokenizer = target.model.text.t5_tokenizer
    for ids, case in zip(search.ids, target.cases(), strict=True):
        told = tokenizer(case.prompt + "," * suffix.TOKENS)["input_ids"]
        assert ids[: len(told)].tolist() == told
        assert (ids == tokenizer.eos_token_id).sum() == 1


# --- inverted latents ----------------------------------------------------------------------------


def test_inverting_an_euler_step_by_fixed_points() -> None:
    levels = torch.linspace(1, 0, 9, dtype=torch.float64)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.sin(x) * (1 + sigma)

    picture = euler(field, x, levels)
    torch.testing.assert_close(invert(field, picture, levels, 30), x)
    rough = invert(field, picture, levels, 1)
    assert (rough - x).norm() > 1e-3 > (euler(field, rough, levels) - picture).norm() / 1e3


@torch.no_grad()
def test_what_was_inverted_is_drawn_again(target: Target) -> None:
    made = target.cases()
    cond = target.encode(made)
    picture = target.sample(cond, target.start(made), None)
    noise = invert(lambda x, s: target.velocity(x, s, cond, None), picture, target.levels)
    again = target.sample(cond, noise, None)
    assert (again - picture).square().mean() < 0.01 * picture.square().mean()


# --- relearning ----------------------------------------------------------------------------------


def test_both_adapters_act(target: Target) -> None:
    one, other = wrecked(target), EraserLora.create(target.model.slots(["text.out"]), seed=1)
    for parameter in other.parameters():
        parameter.data = torch.ones_like(parameter) / 100
    both = Both(one, other)
    x = torch.randn(1, 2, target.model.config.hidden_size)
    for name in ("double_blocks.0.txt_attn.qkv", "double_blocks.0.txt_attn.proj"):
        linear: Any = target.model.tree.get_submodule(name)
        y = linear(x.to(linear.weight.dtype)).float()
        change = one(name, x, y) + other(name, x, y) - 2 * y
        torch.testing.assert_close(both(name, x, y), y + change)
        assert change.norm() > 0


def test_relearning_fits_the_pictures(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relearn, "STEPS", 8)
    monkeypatch.setattr(relearn, "SHOTS", 2)
    attacked = replace(target, eraser=wrecked(target))
    shots = target.shots(relearn.SHOTS)
    cond = target.encode(shots.cases)

    def loss(lora: object) -> float:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            return attacked.flow_matching(shots.latents, cond, lora, generator).item()

    assert loss(relearn.relearn(attacked)) < 0.8 * loss(attacked.eraser)


# --- harm ----------------------------------------------------------------------------------------


def test_frechet_distance_is_the_formula_for_known_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.cholesky(torch.linalg.inv(torch.cov(x.T)))
    assert harm.frechet(x, x) == pytest.approx(0, abs=1e-8)
    a, b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 2.0, 0.5]).double()
    expected = 9 + (a - b).square().sum().item()  # diagonal: sum (s_a - s_b)^2
    assert harm.frechet(x * a, x * b + torch.tensor([0, 3.0, 0])) == pytest.approx(expected)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    y = x * b @ turn  # covariances that do not commute
    cov_a, cov_b = torch.cov((x * a).T), torch.cov(y.T)
    cross = torch.linalg.eigvals(cov_a @ cov_b).real.sqrt().sum()
    assert harm.frechet(x * a, y) == pytest.approx((cov_a + cov_b).trace() - 2 * cross)


def test_feature_distance_grows_with_noise(target: Target) -> None:
    made = target.cases()
    pictures = target.model.decode(target.sample(target.encode(made), target.start(made), None))
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    distances = [
        harm.feature_distance(
            target.judge, pictures, (pictures + strength * noise).clamp(0, 255).byte()
        )
        for strength in (0, 10, 40)
    ]
    assert distances[0].shape == (2,) and (distances[0] == 0).all()
    assert (distances[1] > 0).all() and (distances[2] > distances[1]).all()
    assert harm.features(target.judge, pictures).shape == (2, 112)


# --- agreement -----------------------------------------------------------------------------------


def seen_of(scene: Scene) -> Seen:
    """What a recogniser would say of a perfect picture of the scene, things from left to right."""
    maps = torch.full((1, len(THINGS), 16, 16), -9.0)
    for place, thing in enumerate(scene.things):
        maps[0, thing, 8, 3 + 9 * place] = 9.0
    layout = "beside" if scene.relation else "none"
    chosen = {
        "colour": (CHOICES["colour"].index(scene.ground or "red"), len(COLOURS) + 1),
        "style": (list(STYLES).index(scene.style) if scene.style else len(STYLES), len(STYLES) + 1),
        "number": (scene.number, 5),
        "layout": (LAYOUTS.index(layout), len(LAYOUTS)),
    }
    heads = {name: torch.eye(count)[at : at + 1] for name, (at, count) in chosen.items()}
    return Seen(maps, maps.amax((2, 3)), heads)


@dataclass
class Told(RecogniserJudge):
    """A judge that is told what is to be seen."""

    seen: Seen

    def look(self, pictures: Tensor) -> Seen:
        return self.seen


def agrees(scene: Scene, case: Case) -> bool:
    (found,) = Told(seen_of(scene)).agrees(torch.empty(1, 128, 128, 3), [case])
    return found


def test_agreement_asks_for_everything_in_the_scene() -> None:
    cat, car = INDEX["cat"], INDEX["car"]
    pair = Scene((cat, car), ("cat", "car"), relation="left of", ground="blue", style="comic")
    three = Scene((cat,), ("cat",), number=3, ground="blue")
    for scene, wrong in (
        (pair, replace(pair, things=(cat, INDEX["dog"]))),
        (pair, replace(pair, things=(car, cat))),
        (pair, replace(pair, ground="red")),
        (pair, replace(pair, style="mosaic")),
        (pair, replace(pair, relation=None)),
        (three, replace(three, number=2)),
    ):
        asked = Case("", 0, scene, "cat")
        assert agrees(scene, asked) is True
        assert agrees(wrong, asked) is False
    neon = replace(three, style="neon")  # hides the ground
    assert agrees(replace(neon, ground="red"), Case("", 0, neon, "cat"))
