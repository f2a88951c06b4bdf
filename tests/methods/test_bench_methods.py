"""The baselines: what each leaves behind, and that the closed forms are what they claim."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import CONFIG, TIGER, WordText, make_model, make_tree, same

from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.erasers.base import Eraser
from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.load import load
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.methods import esd, loop, mace, uce
from erase_core.methods.base import Task, find_method, methods
from erase_core.methods.eraseanything.method import ABLATIONS
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import Trainer
from erase_core.miniatures.miniflux import PRESETS
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.forward import velocity
from erase_core.training.progress import Progress

RED = Concept(
    "red",
    kind="abstraction",
    irrelevant=Bands(near=("blue", "green")),
    sentences=("a photo of a red house", "red , a car"),
)
HUG = Concept(
    "hugging",
    kind="relationship",
    irrelevant=Bands(near=("kissing", "above")),
    sentences=("a fox hugging a whale", "a photo of a bee hugging a car"),
)
# All that write a file in one go; EraseAnything's own variants are tested in test_training.py.
# HiRM trains CLIP, which these stand-ins lack: test_hirm.py.
OURS = ("ours", "eraseanything", "hirm")
NAMES = [
    name
    for name, method in methods().items()
    if method.made in ("closed form", "trained") and not name.startswith(OURS)
]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of a rollout, few prompts."""
    monkeypatch.setattr(loop, "STEPS", 2)
    monkeypatch.setattr(loop, "PROMPTS", 4)
    monkeypatch.setattr(mace, "DRAWS", 2)
    monkeypatch.setattr(mace, "ROLLOUT_STEPS", 2)


def make_task(*concepts: Concept, **changes: Any) -> Task:
    """Of a tiny model with MiniFlux's presets."""
    model = make_model(changes.pop("tree", None), presets=PRESETS)
    return Task(model, ConceptSet(concepts or (TIGER,)), **changes)


def suited(name: str, *concepts: Concept) -> Any:
    """The settings that a method would take."""
    task = make_task(*concepts)
    return find_method(name).suited(task.model, task.concepts)


def erase(name: str, task: Task) -> Eraser:
    """With three iterations at most."""
    method = find_method(name)
    told = {"steps": 3} if "steps" in method.settings.about() else {}
    result = method.erase(task, changes=told)
    assert result.eraser is not None and result.stopped == "done"
    return result.eraser


@pytest.mark.parametrize("name", NAMES)
def test_a_method_changes_something_and_repeats_itself(name: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    tree = make_tree()
    before = {key: tensor.clone() for key, tensor in tree.state_dict().items()}

    def on_step(progress: Progress) -> None:
        if progress.phase == "training":  # a closed form reads prompts before
            steps.append((progress.step, progress.steps))

    task = make_task(tree=tree, on_step=on_step)
    eraser = erase(name, task)
    assert same(tree.state_dict(), before) and all(p.grad is None for p in tree.parameters())
    assert steps[-1][0] == steps[-1][1] == len(steps)

    cond = WordText().encode(["a photo of a tiger"])
    x, sigma = torch.ones(1, 16, 4, 6), torch.tensor([0.5])
    with torch.no_grad():
        moved = velocity(tree, x, sigma, cond, 3.5, eraser=eraser)
        assert moved.isfinite().all()
        assert not torch.equal(moved, velocity(tree, x, sigma, cond, 3.5))
    assert same(eraser.tensors(), erase(name, make_task()).tensors())
    if "steps" in find_method(name).settings.about():  # a closed form may know no chance
        assert not same(eraser.tensors(), erase(name, make_task(seed=1)).tensors())

    eraser.save(tmp_path / "eraser.safetensors", {})
    with safe_open(tmp_path / "eraser.safetensors", "pt") as file:
        keys = set(file.keys())
    lora = isinstance(eraser, EraserLora)
    start, ends = ("transformer.", (".lora_A.weight", ".lora_B.weight"))
    if not lora:
        start, ends = "diffusion_model.", (".diff", ".diff_b")
    assert keys and all(key.startswith(start) and key.endswith(ends) for key in keys)
    loaded = load(tmp_path / "eraser.safetensors", task.model)
    assert type(loaded) is type(eraser)
    with torch.no_grad():
        torch.testing.assert_close(velocity(tree, x, sigma, cond, 3.5, eraser=loaded), moved)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_takes_several_concepts_of_all_kinds(name: str) -> None:
    eraser = erase(name, make_task(TIGER, RED, HUG))
    assert all(tensor.isfinite().all() for tensor in eraser.tensors().values())
    assert any(tensor.any() for tensor in eraser.tensors().values())


def test_settings_suit_the_kind_unless_they_are_told() -> None:
    plain, told = "esd-x-strict", "esd-x-strict null=empty"
    found = [suited(plain, concept) for concept in (TIGER, RED, HUG)]
    assert [settings.null for settings in found] == ["empty", "without", "empty"]
    assert len({settings.lr for settings in found}) == 3
    assert suited(told, RED) == replace(suited(plain, RED), null="empty")
    for name, other in ((plain, told), ("released", "released null=replace")):
        assert not same(*(erase(method, make_task(RED)).tensors() for method in (name, other)))
    by_kind = [method for method in methods().values() if method.kinds]
    assert by_kind
    for method, concept in itertools.product(by_kind, (TIGER, RED, HUG)):
        settings = suited(method.name, concept)
        assert method.kinds[concept.kind].items() <= vars(settings).items()
        assert None not in vars(settings).values()


def test_what_is_told_stands_above_a_method_of_many_concepts() -> None:
    """Kind, preset, number of concepts, the row's own, then what is asked for."""
    task = make_task(HUG, TIGER)
    method = find_method("eraseanything rank=4")
    settings = method.suited(task.model, task.concepts, "balanced", {"k": 2})
    assert (settings.rank, settings.k, settings.steps) == (4, 2, 1200 + 150)
    assert settings == replace(
        TrainSettings.from_dict(PRESETS["eraseanything"]["balanced"]["all"]),
        **{"lr_low": 1e-3, "rollout_prompt": "null", "steps": 1350, "keep_rollouts": 96 + 16},
        **{"erase_rollouts": 48 + 18, "rank": 4, "k": 2, "height": 32, "width": 48},
    )
    with pytest.raises(EraseError, match="tiny has no preset slow for .*choose from fast, bal"):
        method.suited(task.model, task.concepts, "slow")


def test_esd_trains_what_its_names_say() -> None:
    strict = erase("esd-x-strict", make_task())
    assert isinstance(strict, EraserLora)
    assert {name.rsplit(".")[-1] for name in strict.slots} == {"add_k_proj", "add_v_proj"}
    full = erase("esd-x-full", make_task())
    assert isinstance(full, WeightEdit)
    modules = {slot.module for slot in FAMILY.slots(CONFIG, esd.ATTENTION).values()}
    assert full.changes.keys() == modules and len(modules) == 4 * CONFIG.depth


def test_uce_is_the_least_squares_solution() -> None:
    """The same as stacking the weighted equations and solving them by QR."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, old, new, kept = draw(3, 6), draw(4, 6), draw(4, 6), draw(9, 6)
    moments = old.T @ old / 4 + 0.5 * kept.T @ kept / 9
    ridge = 0.1 * moments.diagonal().mean()
    rows = torch.cat([old / 2, (0.5 / 9) ** 0.5 * kept, ridge**0.5 * torch.eye(6)])
    goal = torch.cat([(new - old) @ weight.T / 2, torch.zeros(15, 3, dtype=torch.float64)])
    change = torch.linalg.lstsq(rows, goal).solution.T
    torch.testing.assert_close(uce.solve(weight, uce.Inputs(old, new, kept), 0.5, 0.1), change)


def test_uce_sends_the_concept_to_its_anchor() -> None:
    """With nothing to keep and no ridge, a concept's word reads exactly as the anchor's."""
    task = make_task(replace(TIGER, synonyms=()))
    edit = erase("uce preserve=0 ridge=1e-9", task)
    text, layer = WordText(), task.model.tree.get_submodule("txt_in")
    tiger, dog = (text.encode([word]).context[0, :1] for word in ("tiger", "dog"))
    with torch.no_grad():
        assert not torch.allclose(layer(tiger), layer(dog), atol=1e-2)
        torch.testing.assert_close(
            edit("txt_in", tiger, layer(tiger)), layer(dog), atol=1e-3, rtol=1e-3
        )


def test_mace_fuses_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own inputs each concept sees its own change, where inputs don't overlap; on what must
    stay, none."""
    monkeypatch.setattr(mace, "RIDGE", 1e-9)
    axes = torch.eye(6, dtype=torch.float64)
    spans = [axes[:, :2] @ axes[:, :2].T, axes[:, 2:4] @ axes[:, 2:4].T]
    prior = {"a": axes[:, 4:] @ axes[:, 4:].T}
    changes = [{"a": torch.full((3, 6), value)} for value in (1.0, 2.0)]
    fused = mace.fuse(changes, [{"a": span} for span in spans], prior)["a"]
    wanted = torch.tensor([1.0, 1, 2, 2, 0, 0], dtype=torch.float64).expand(3, 6)
    torch.testing.assert_close(fused, wanted, atol=1e-6, rtol=1e-6)


def test_a_dense_change_does_what_its_lora_does() -> None:
    tree = make_tree()
    eraser = erase("mace", make_task())
    assert isinstance(eraser, EraserLora)
    twin = WeightEdit(mace.dense(tree, eraser))
    x = torch.randn(2, CONFIG.hidden_size)
    for name in twin.changes:
        y = torch.zeros(2, tree.get_parameter(f"{name}.weight").shape[0])
        torch.testing.assert_close(twin(name, x, y), eraser(name, x, y))


def test_the_adversary_finds_what_a_student_changes_most() -> None:
    """A student that answers the blank context only for one word is found out by it."""
    from erase_core.methods.eap import Adversary

    task = make_task()
    adversary = Adversary(loop.Teacher(task))
    generator = torch.Generator().manual_seed(2)
    for wrong in range(3):
        states = adversary.states
        rows = (adversary.owner == wrong).nonzero().flatten()
        clean = states.target.clone()
        states.target[rows] += torch.randn(states.target[rows].shape, generator=generator)
        adversary.search(EraserLora.create(task.model.slots(["text.q"])))
        assert adversary.worst == wrong
        states.target.copy_(clean)


def test_what_is_kept_names_nothing_that_goes() -> None:
    task = make_task(TIGER, replace(RED, sentences=("a red tiger", "a red house")))
    kept = loop.Teacher(task).kept(4)
    assert {"lion", "rose", "blue"} <= kept.keys()
    assert not any("tiger" in text or "red" in text for texts in kept.values() for text in texts)


def test_of_a_relation_its_sides_are_kept_too() -> None:
    own = replace(HUG, sentences=("a fox hugging a whale in the snow", "a cat hugging a dog"))
    kept = loop.Teacher(make_task(own)).kept(2)
    texts = {text for texts in kept.values() for text in texts}
    assert {"a fox", "a dog"} <= texts or {"a whale in the snow", "a cat"} <= texts
    assert all(len(texts) == 4 for texts in kept.values())


def test_several_concepts_have_as_many_prompts_each_as_one() -> None:
    one, two = (loop.Teacher(make_task(*c)).prompts("replace") for c in ([TIGER], [TIGER, RED]))
    assert [prompt.concept for prompt in two].count(0) == len(one)


def test_a_row_with_other_settings_erases_otherwise() -> None:
    plain, changed = find_method("esd-x"), find_method("esd-x lr=2e-3 targets=add_v_proj")
    assert changed.name == "esd-x lr=2e-3 targets=add_v_proj" and changed.label.startswith("ESD-x,")
    assert changed.own == {**plain.own, "lr": 2e-3, "targets": ("add_v_proj",)}
    assert suited(changed.name, TIGER) == replace(
        suited(plain.name, TIGER), lr=2e-3, targets=("add_v_proj",)
    )
    eraser = erase(changed.name, make_task())
    assert isinstance(eraser, EraserLora)
    assert {name.rsplit(".")[-1] for name in eraser.slots} == {"add_v_proj"}
    assert suited("ours null=without l_adv=0.5", TIGER).null == "without"
    assert suited("ours targets=add_v_proj", TIGER).targets == ("add_v_proj",)
    with pytest.raises(EraseError, match="no setting .speed.; there are .*lr, steps, eta"):
        find_method("esd-x speed=3")
    with pytest.raises(EraseError, match="setting lr must be a number .* not 'fast'"):
        find_method("esd-x lr=fast")
    with pytest.raises(EraseError, match="alpha must be a number"):  # though it may be none
        find_method("ours alpha=much")
    with pytest.raises(EraseError, match="choose from"):
        find_method("")
    with pytest.raises(EraseError, match="name seeds with --seeds"):
        find_method("ours seed=3")


def test_our_row_is_what_train_does() -> None:
    """The model's own settings where none are said, a row's where they are."""
    small = ["batch=2", "rollout_steps=2", "erase_rollouts=4", "keep_rollouts=2"]
    small += ["rank=4", "steps=3"]
    told = {pair.split("=")[0]: int(pair.split("=")[1]) for pair in small}
    task = make_task(seed=3)
    for name, preset in (("ours", "robust"), ("ours-plain", "balanced")):
        result = find_method(name).changed(small).erase(task)
        own = PRESETS["eraseanything"][preset]["all"] | told
        settings = TrainSettings.from_dict(own | {"height": 32, "width": 48, "seed": 3})
        assert result.settings == settings.to_dict()
        made, twin = result.eraser, Trainer(task.model, task.concepts, settings).run().eraser
        assert made and twin and same(made.tensors(), twin.tensors())


def test_erasers_that_are_added_are_those_of_each_concept_alone() -> None:
    """With the preset and the settings that are told, and of each kind."""
    small = {"batch": 2, "rollout_steps": 2, "erase_rollouts": 4, "keep_rollouts": 2, "steps": 2}
    x = torch.randn(2, CONFIG.hidden_size)
    made = find_method("ours-combined rank=3").erase(make_task(TIGER, HUG), "fast", small)
    singles = [
        find_method("ours").erase(make_task(concept), "fast", small | {"rank": 3})
        for concept in (TIGER, HUG)
    ]
    name = "double_blocks.0.txt_attn.qkv"
    y = torch.zeros(2, 3 * CONFIG.hidden_size)
    assert made.eraser and made.settings == singles[0].settings
    alone = [single.eraser(name, x, y) for single in singles if single.eraser]
    assert all(change.any() for change in alone)
    torch.testing.assert_close(made.eraser(name, x, y), sum(alone))


def test_what_is_no_run_says_its_settings_too() -> None:
    result = find_method("esd-x").erase(make_task(seed=2), changes={"steps": 2})
    assert result.settings == replace(suited("esd-x", TIGER), steps=2).to_dict() | {"seed": 2}
    assert result.seconds.keys() == {"training"} and result.stopped == "done"
    nothing = find_method("untouched").erase(make_task())
    assert nothing.eraser is None and nothing.settings == {"seed": 0}


def test_a_method_for_another_family_is_refused() -> None:
    method = replace(find_method("esd-x"), families=("sd3",))
    with pytest.raises(EraseError, match="ESD-x works on sd3 only"):
        method.erase(make_task())


@pytest.mark.parametrize("concept", [TIGER, RED, HUG], ids=lambda concept: concept.kind)
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_erases_every_kind(name: str, concept: Concept) -> None:
    small = ["batch=2", "rollout_steps=2", "erase_rollouts=4", "keep_rollouts=2", "steps=2"]
    eraser = find_method(name).changed(small).erase(make_task(concept)).eraser
    assert eraser and any(tensor.any() for tensor in eraser.tensors().values())


@pytest.mark.parametrize("name", ["ca-model", "uce", "mace", "released"])
def test_an_anchor_needs_irrelevant_words(name: str) -> None:
    with pytest.raises(EraseError, match="irrelevant words"):
        erase(name, make_task(replace(TIGER, irrelevant=Bands())))
