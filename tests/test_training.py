"""The trainer on a tiny random Flux: exactness, resumption, cancel, divergence, and that it works.

The text encoder is a stand-in with one random vector per word.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.errors import EraseError
from erase_core.files import read_tensors
from erase_core.flux.config import FluxConfig
from erase_core.flux.forward import Conditioning, Probe, flux_forward, velocity
from erase_core.flux.model import Flux
from erase_core.lora import EraserLora
from erase_core.text.encoders import TextEncoders
from erase_core.text.spans import word_spans
from erase_core.training import (
    KeepPictures,
    Progress,
    Trainer,
    TrainResult,
    TrainSettings,
    lora_metadata,
)
from erase_core.training.checkpoint import checkpoints
from erase_core.training.guard import Guard
from erase_core.training.prompts import EncodedPrompts, plan_prompts
from erase_core.training.states import Pictures, Rollouts

CONFIG = FluxConfig(
    vec_in_dim=8,
    context_in_dim=16,
    hidden_size=128,
    num_heads=1,
    depth=2,
    depth_single_blocks=1,
)
LENGTH = 14
TIGER = Concept(
    "tiger",
    synonyms=("big cat",),
    irrelevant=Bands(none=("rose", "car"), far=("fish",), mid=("dog",), near=("lion", "leopard")),
    sentences=("a photo of a tiger", "a tiger in the snow", "two tigers and a house"),
)
CONCEPTS = ConceptSet((TIGER,))
SETTINGS = TrainSettings(
    steps=6,
    batch=2,
    rank=2,
    rollout_steps=3,
    erase_rollouts=4,
    keep_rollouts=3,
    height=32,
    width=48,
    checkpoint_every=3,
)


class WordText:
    """Encodes a prompt as one seeded random vector per word."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        self.calls += 1
        rows = [[self._vector(w, 16) for w in self._words(p)] for p in prompts]
        pooled = [
            torch.stack([self._vector(w, 8) for w in self._words(p)]).mean(0) for p in prompts
        ]
        return Conditioning(torch.stack([torch.stack(row) for row in rows]), torch.stack(pooled))

    def token_mask(self, prompt: str, word: str) -> Tensor:
        spans = word_spans(prompt, word)
        if not spans:
            raise EraseError(f"no {word} in {prompt}")
        mask, end = torch.zeros(LENGTH), 0
        for index, token in enumerate(prompt.split(" ")):
            start, end = end, end + len(token) + 1
            mask[index] = float(any(start < b and a < end - 1 for a, b in spans))
        return mask

    def _words(self, prompt: str) -> list[str]:
        words = prompt.split(" ")
        return words + ["<pad>"] * (LENGTH - len(words))

    def _vector(self, word: str, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        return torch.randn(size, generator=generator)


def make_tree(seed: int = 0, dtype: torch.dtype = torch.float32) -> Flux:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Flux(CONFIG).to(dtype)


def make_trainer(settings: TrainSettings = SETTINGS, **options: Any) -> Trainer:
    tree = options.pop("tree", None) or make_tree()
    concepts = options.pop("concepts", CONCEPTS)
    return Trainer(tree, CONFIG, WordText(), concepts, settings, **options)


def run(settings: TrainSettings = SETTINGS, **options: Any) -> TrainResult:
    return make_trainer(settings, **options).run()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stop_at(step: int, error: type[BaseException]) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.phase == "training" and progress.step == step:
            raise error

    return on_step


# --- the whole run -------------------------------------------------------------------------------


def test_a_run_reports_every_phase_and_loss() -> None:
    seen: list[Progress] = []
    result = run(on_step=seen.append)
    assert result.stopped == "done"
    assert [list(losses) for losses in result.history] == [["esd", "attn", "lora", "rsc"]] * 6
    assert list(result.seconds) == ["text", "rollouts", "training"]
    for phase, steps in (("text", 1), ("rollouts", 4 * 3), ("training", 6)):
        ticks = [p for p in seen if p.phase == phase]
        assert [(p.step, p.steps) for p in ticks] == [(i + 1, steps) for i in range(steps)]
        assert ticks[-1].seconds_left == 0.0
    assert seen[-1].losses == result.history[-1]


def test_a_fresh_student_starts_at_the_teacher() -> None:
    first = run(replace(SETTINGS, steps=1, l_esd=0.0, l_attn=0.0, l_rsc=0.0)).history[0]
    assert list(first) == ["lora"]
    assert first["lora"] == pytest.approx(0.0, abs=1e-10)


def test_same_seed_same_bytes_and_another_seed_another_lora(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = run(replace(SETTINGS, seed=seed))
        result.lora.save(tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_erase_loss_falls_and_the_velocity_moves_to_the_target() -> None:
    settings = replace(
        SETTINGS, steps=60, lr_low=1e-2, l_attn=0.0, l_lora=0.0, l_rsc=0.0, null="replace", rank=8
    )
    trainer = make_trainer(settings, tree=sharp_tree())
    history = trainer.run().history
    first, last = (sum(h["esd"] for h in part) / 10 for part in (history[:10], history[-10:]))
    assert last < 0.8 * first


def test_the_preserve_loss_holds_what_must_stay() -> None:
    settings = replace(SETTINGS, steps=60, lr_low=1e-2, lr_up=1e-2, l_rsc=0.0, null="replace")
    tree = sharp_tree()
    free = make_trainer(replace(settings, l_lora=1e-9), tree=tree).run().history
    held = make_trainer(replace(settings, l_lora=10.0), tree=tree).run().history
    assert sum(h["lora"] for h in held[-20:]) < 0.7 * sum(h["lora"] for h in free[-20:])


def sharp_tree() -> Flux:
    """A tree whose text matters more than in a freshly initialised one."""
    tree = make_tree()
    with torch.no_grad():
        for block in tree.double_blocks:
            block.img_attn.norm.query_norm.weight *= 3
            block.txt_attn.qkv.weight *= 3
            block.img_mod.lin.bias += 1
        tree.txt_in.weight *= 3
    return tree


# --- the base model ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_the_tree_is_left_as_it_was(error: type[BaseException] | None) -> None:
    tree = make_tree()
    tree.img_in.weight.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in tree.named_parameters()}
    flags = {name: p.requires_grad for name, p in tree.named_parameters()}
    trainer = make_trainer(tree=tree, on_step=stop_at(3, error) if error else None)
    if error is RuntimeError:
        with pytest.raises(RuntimeError):
            trainer.run()
    else:
        trainer.run()
    assert same(before, {name: p.detach() for name, p in tree.named_parameters()})
    assert flags == {name: p.requires_grad for name, p in tree.named_parameters()}
    assert all(p.grad is None for p in tree.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tree.modules())
    assert any(v.any() for k, v in trainer.lora.state().items() if "lora_B" in k)


def test_a_bfloat16_base_trains_a_float32_lora() -> None:
    result = run(tree=make_tree(dtype=torch.bfloat16))
    assert result.stopped == "done"
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in result.lora.parameters())


def test_activation_checkpointing_changes_nothing() -> None:
    plain, recomputed = run(), run(replace(SETTINGS, activation_checkpointing=True))
    for key, value in plain.lora.state().items():
        torch.testing.assert_close(recomputed.lora.state()[key], value, rtol=1e-3, atol=1e-6)


# --- the states ----------------------------------------------------------------------------------


def rollouts(trainer: Trainer) -> tuple[Rollouts, Rollouts]:
    assert trainer.states is not None and isinstance(trainer.states.keep, Rollouts)
    return trainer.states.erase, trainer.states.keep


def base_velocity(tree: Flux, states: Rollouts, r: int, s: int, text: str, g: float) -> Tensor:
    x, sigma = states.latents[r, s][None].float(), states.sigmas[s][None]
    with torch.no_grad():
        return velocity(tree, x, sigma, WordText().encode([text]), g)[0]


@pytest.mark.parametrize("guidance_rollout", [3.5, 1.0])
def test_kept_teacher_velocities_are_those_of_the_base_also_after_a_refresh(
    guidance_rollout: float,
) -> None:
    """Teacher terms are blind to the LoRA: recomputed here from the base model alone."""
    tree = sharp_tree()
    settings = replace(
        SETTINGS, refresh_every=2, guidance_rollout=guidance_rollout, lr_low=0.1, null="replace"
    )
    trainer = make_trainer(settings, tree=tree)
    trainer.run()
    erase, keep = rollouts(trainer)
    assert erase.null is not None and erase.contrast is not None
    for r, s in itertools.product(range(4), range(3)):
        prompt = trainer.plan.erase[r]
        for kept, text in ((erase.target, prompt.sentence.text), (erase.null, prompt.null)):
            wanted = base_velocity(tree, erase, r, s, text, 3.5)
            torch.testing.assert_close(kept[r, s], wanted, rtol=1e-4, atol=1e-5)
        for kept, placed in zip(
            erase.contrast[r, s], (prompt.synonym, *prompt.irrelevant), strict=True
        ):
            assert placed is not None
            x, sigma = erase.latents[r, s][None].float(), erase.sigmas[s][None]
            wanted = attention(tree, x, sigma, [placed])[0, :, 0]
            torch.testing.assert_close(kept, wanted, rtol=1e-4, atol=1e-6)
    wanted = base_velocity(tree, keep, 2, 1, trainer.plan.keep[2], 3.5)
    torch.testing.assert_close(keep.target[2, 1], wanted, rtol=1e-4, atol=1e-5)


def test_rollouts_are_euler_steps_of_the_prompt() -> None:
    tree = sharp_tree()
    trainer = make_trainer(tree=tree)
    trainer.run()
    _, states = rollouts(trainer)
    assert states.sigmas[0] == 1.0 and states.sigmas[-1] == 0.0
    for step in range(2):
        v = base_velocity(tree, states, 0, step, trainer.plan.keep[0], 3.5)
        x = states.latents[0, step].float()
        x = x + (states.sigmas[step + 1] - states.sigmas[step]) * v
        torch.testing.assert_close(states.latents[0, step + 1].float(), x, rtol=0.02, atol=0.02)


def test_a_refresh_changes_erase_states_only_and_walks_with_the_student() -> None:
    fixed, fresh = make_trainer(), make_trainer(replace(SETTINGS, refresh_every=2))
    fixed.run()
    fresh.run()
    assert same(rollouts(fixed)[1].tensors(), rollouts(fresh)[1].tensors())
    a, b = (rollouts(t)[0] for t in (fixed, fresh))
    assert not torch.equal(a.latents, b.latents)


def test_pictures_are_noised_towards_their_flow_matching_target() -> None:
    clean = torch.randn(3, 16, 4, 6)
    batch = Pictures(clean).draw(torch.Generator().manual_seed(0), 64)
    t = batch.sigma[:, None, None, None]
    torch.testing.assert_close(batch.latents - t * batch.target, clean[batch.rows])
    assert batch.sigma.min() > 0 and batch.sigma.max() < 1
    assert set(batch.rows.tolist()) == {0, 1, 2}


def test_pictures_stand_for_the_irrelevant_set() -> None:
    pictures = KeepPictures(torch.randn(2, 16, 4, 6), ("a rose", "a lion"))
    trainer = make_trainer(pictures=pictures)
    assert trainer.plan.keep == pictures.prompts
    result = trainer.run()
    assert result.stopped == "done"
    assert result.history[0]["lora"] > 0.1  # real pictures are no fixed point of a random model


# --- the losses at their states ------------------------------------------------------------------


def test_the_first_iteration_has_the_losses_of_the_formulas() -> None:
    """Eq. 2, 3 and 5 at the run's first batch, with the LoRA still at zero."""
    tree = sharp_tree()
    settings = replace(SETTINGS, steps=1, lr_low=0.0, lr_up=0.0, eta=0.5, null="replace")
    trainer = make_trainer(settings, tree=tree)
    first = trainer.run().history[0]
    twin = make_trainer(settings, tree=tree)
    twin.generator = torch.Generator().manual_seed(0)
    plan_prompts(CONCEPTS, settings, twin.generator)
    states = twin._roll_out(EncodedPrompts(twin.plan, WordText()))
    torch.randint(1, (), generator=twin.generator)
    batch = states.erase.draw(twin.generator, 2)
    assert batch.null is not None
    esd = (1.5 * (batch.target - batch.null)).square().mean().item()
    assert first["esd"] == pytest.approx(esd, rel=1e-3)
    un, syn, *irrelevant = (
        attention(tree, batch.latents, batch.sigma, words)
        for words in words_of(twin, batch.rows.tolist())
    )
    assert first["attn"] == pytest.approx(un.mean().item(), rel=1e-4)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return torch.cosine_similarity(a.flatten(1), b.flatten(1)) / 0.07

    others = torch.stack([cosine(un, f).exp() for f in irrelevant]).sum(0)
    rsc = -(others / (cosine(un, syn).exp() + others)).log().mean()
    assert first["rsc"] == pytest.approx(rsc.item(), rel=1e-3)


def words_of(trainer: Trainer, rows: list[int]) -> list[list[tuple[str, str]]]:
    prompts = [trainer.plan.erase[row] for row in rows]
    words: list[list[Any]] = [[p.sentence for p in prompts], [p.synonym for p in prompts]]
    return words + [[p.irrelevant[k] for p in prompts] for k in range(3)]


def attention(tree: Flux, x: Tensor, sigma: Tensor, words: list[tuple[str, str]]) -> Tensor:
    text = WordText()
    tokens = torch.stack([text.token_mask(t, word) for t, word in words])[:, None]
    cond = text.encode([t for t, _ in words])
    with torch.no_grad():
        out = flux_forward(tree, x, sigma, cond, 3.5, probe=Probe((1,), tokens, stop=True))
    assert out.attention is not None
    return out.attention


@pytest.mark.parametrize("weight", ["l_esd", "l_attn", "l_lora", "l_rsc"])
def test_a_loss_of_weight_zero_is_not_computed(weight: str) -> None:
    for losses in run(replace(SETTINGS, steps=2, **{weight: 0.0})).history:
        assert set(losses) == {"esd", "attn", "lora", "rsc"} - {weight.removeprefix("l_")}


def test_a_concept_without_synonyms_goes_without_rsc() -> None:
    lonely = ConceptSet((replace(TIGER, synonyms=()),))
    assert all("rsc" not in losses for losses in run(concepts=lonely).history)


# --- stopping ------------------------------------------------------------------------------------


def test_cancel_keeps_the_work_done() -> None:
    result = run(on_step=stop_at(4, KeyboardInterrupt))
    assert result.stopped == "cancelled"
    assert len(result.history) == 4
    assert same(result.lora.state(), run(replace(SETTINGS, steps=4)).lora.state())


@pytest.mark.parametrize("phase", ["text", "rollouts"])
def test_cancel_before_training_leaves_a_lora_that_does_nothing(phase: str) -> None:
    def on_step(progress: Progress) -> None:
        if progress.phase == phase:
            raise KeyboardInterrupt

    result = run(on_step=on_step)
    assert result.stopped == "cancelled"
    assert not any(v.any() for k, v in result.lora.state().items() if "lora_B" in k)


def test_another_error_reaches_the_caller_and_the_work_is_kept() -> None:
    trainer = make_trainer(on_step=stop_at(4, RuntimeError))
    with pytest.raises(RuntimeError):
        trainer.run()
    assert same(trainer.lora.state(), run(replace(SETTINGS, steps=4)).lora.state())


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights() -> None:
    result = run(replace(SETTINGS, steps=30, lr_low=1e25))
    assert result.stopped == "diverged"
    assert len(result.history) < 30
    assert all(p.isfinite().all() for p in result.lora.parameters())


def test_an_exploding_loss_stops_with_weights_from_before() -> None:
    """One word in place of another is a small push; at this rate the student overshoots it."""
    settings = replace(
        SETTINGS,
        steps=60,
        lr_low=1.0,
        targets=("add_v_proj", "to_add_out", "vector_in"),
        null="replace",
        l_attn=0.0,
        l_rsc=0.0,
    )
    result = run(settings)
    assert result.stopped == "diverged"
    assert len(result.history) < 60
    assert all(p.isfinite().all() and p.abs().max() < 1 for p in result.lora.parameters())
    assert run(replace(settings, steps=20, lr_low=1e-3)).stopped == "done"


def test_the_guard_goes_back_to_weights_from_before_the_losses_rose() -> None:
    lora = EraserLora.create(CONFIG, ("add_q_proj",), rank=2)
    guard = Guard(lora, idle=1.0, watched=("esd", "lora"))
    name = "transformer_blocks.0.attn.add_q_proj.lora_B.weight"
    outcomes = []
    for step in range(60):
        lora.load_state({name: torch.full((128, 2), float(step))})
        guard.before(step)
        outcomes.append(guard.healthy({"esd": 0.5 if step < 25 else 9.0, "attn": 99.0}))
    stop = outcomes.index(False)
    smoothed = 0.0
    for step in range(stop + 1):
        smoothed = 0.95 * smoothed + 0.05 * (0.5 if step < 25 else 9.0)
    assert stop > 25 and smoothed > 3.0
    guard.restore()
    assert (lora.state()[name] == 20.0).all()
    assert not guard.healthy({"esd": float("nan")})


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"refresh_every": 2, "alpha": 3.0, "l_lora": 0.0}])
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    settings = replace(SETTINGS, steps=8, **options)
    whole = run(settings)
    make_trainer(settings, checkpoint_dir=tmp_path, on_step=stop_at(5, KeyboardInterrupt)).run()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000003"]
    resumed = Trainer.resume(tmp_path, make_tree(), CONFIG, WordText())
    assert resumed.step == 3
    result = resumed.run()
    assert same(result.lora.state(), whole.lora.state())
    assert result.history == whole.history
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000003", "step-000006"]


def test_resume_with_pictures_and_more_steps(tmp_path: Path) -> None:
    pictures = KeepPictures(torch.randn(2, 16, 4, 6), ("a rose", "a lion"))
    whole = run(replace(SETTINGS, steps=8), pictures=pictures)
    run(pictures=pictures, checkpoint_dir=tmp_path)
    latest = tmp_path / "step-000006"
    result = Trainer.resume(latest, make_tree(), CONFIG, WordText(), steps=8).run()
    assert same(result.lora.state(), whole.lora.state())


def test_a_checkpoint_is_plain_files_with_a_lora_that_loads(tmp_path: Path) -> None:
    result = run(replace(SETTINGS, alpha=3.0), checkpoint_dir=tmp_path)
    folder = checkpoints(tmp_path)[-1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "erase.safetensors",
        "keep.safetensors",
        "lora.safetensors",
        "run.json",
        "training.safetensors",
    ]
    assert json.loads((folder / "run.json").read_text())["step"] == 6
    saved = EraserLora.load(folder / "lora.safetensors", CONFIG)
    assert same(saved.tensors(), result.lora.tensors())


def test_old_checkpoints_are_cleaned_up(tmp_path: Path) -> None:
    run(replace(SETTINGS, checkpoint_every=1, keep_checkpoints=2), checkpoint_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000005", "step-000006"]


def test_a_failed_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import erase_core.training.checkpoint as module

    calls = itertools.count()

    def full(path: Path, value: object) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        path.write_text(json.dumps(value))

    monkeypatch.setattr(module, "write_json", full)
    trainer = make_trainer(checkpoint_dir=tmp_path)
    with pytest.raises(EraseError, match="No space left"):
        trainer.run()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    assert trainer.step == 6
    assert Trainer.resume(tmp_path, make_tree(), CONFIG, WordText()).step == 3


def test_stale_state_is_never_continued_by_accident(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path)
    with pytest.raises(EraseError, match="another run"):
        make_trainer(checkpoint_dir=tmp_path)


def test_resume_refuses_another_base(tmp_path: Path) -> None:
    run(checkpoint_dir=tmp_path)
    with pytest.raises(EraseError, match="another base"):
        Trainer.resume(tmp_path, make_tree(seed=1), CONFIG, WordText()).run()
    other = replace(CONFIG, hidden_size=256, num_heads=2)
    with pytest.raises(EraseError, match="another base"):
        Trainer.resume(tmp_path, Flux(other), other, WordText())
    with pytest.raises(EraseError, match="no checkpoint"):
        Trainer.resume(tmp_path / "nowhere", make_tree(), CONFIG, WordText())


# --- prompts and settings ------------------------------------------------------------------------


def plan(settings: TrainSettings = SETTINGS, concepts: ConceptSet = CONCEPTS) -> Any:
    return plan_prompts(concepts, settings, torch.Generator().manual_seed(0))


def test_erase_prompts_hold_the_name_or_a_synonym_and_its_replacements() -> None:
    prompts = plan(replace(SETTINGS, erase_rollouts=6, null="replace")).erase
    assert [p.sentence.word for p in prompts] == ["tiger", "big cat"] * 3
    for prompt in prompts:
        assert word_spans(prompt.sentence.text, prompt.sentence.word)
        assert {prompt.sentence.word, prompt.synonym.word} == {"tiger", "big cat"}
        assert not word_spans(prompt.null, "tiger") and not word_spans(prompt.null, "big cat")
        assert len(prompt.irrelevant) == 3
        for placed in prompt.irrelevant:
            assert placed.word in TIGER.irrelevant_words()
            assert word_spans(placed.text, placed.word)
            assert not word_spans(placed.text, "tiger")


def test_null_follows_the_kind_and_the_setting() -> None:
    red = ConceptSet(
        (replace(TIGER, name="red", synonyms=(), kind="abstraction", sentences=("a red car",)),)
    )
    one = replace(SETTINGS, erase_rollouts=1, shuffle=0.0)
    assert plan(one).erase[0].null == ""
    assert plan(one, red).erase[0].null == "a car"
    assert plan(replace(one, null="empty"), red).erase[0].null == ""
    assert plan(replace(one, null="replace", anchor="blue"), red).erase[0].null == "a blue car"


def test_keep_prompts_take_turns_through_the_bands_and_include_the_empty_one() -> None:
    keep = plan(replace(SETTINGS, keep_rollouts=32)).keep
    assert len(keep) == 32 and keep.count("") == 4
    bands = [sum(any(word_spans(t, w) for w in band) for t in keep) for band in (
        TIGER.irrelevant.none, TIGER.irrelevant.far, TIGER.irrelevant.mid, TIGER.irrelevant.near
    )]  # fmt: skip
    assert min(bands) >= 5
    assert not any(word_spans(t, word) for t in keep for word in TIGER.erased())


def test_several_concepts_share_the_rollouts_and_never_teach_each_other() -> None:
    car = Concept(
        "car", irrelevant=Bands(none=("rose",)), sentences=("a car and a tiger", "a red car")
    )
    both = ConceptSet((replace(TIGER, irrelevant=Bands(near=("lion",))), car))
    found = plan(replace(SETTINGS, erase_rollouts=5, keep_rollouts=6, shuffle=0.0), both)
    assert [p.concept for p in found.erase] == [0, 0, 0, 1, 1]
    assert found.rows(1).tolist() == [3, 4]
    assert len(found.keep) == 6 and not any("tiger" in t or "car" in t for t in found.keep)
    assert run(concepts=both).stopped == "done"


def test_a_concept_that_a_prompt_lacks_or_without_irrelevant_words_is_refused() -> None:
    with pytest.raises(EraseError, match="no irrelevant words"):
        make_trainer(concepts=ConceptSet((replace(TIGER, irrelevant=Bands()),)))
    bare = ConceptSet((replace(TIGER, irrelevant=Bands()),))
    assert run(replace(SETTINGS, l_lora=0.0, l_rsc=0.0), concepts=bare).stopped == "done"


def test_prompts_are_encoded_once() -> None:
    trainer = make_trainer()
    trainer.run()
    assert isinstance(trainer.text, WordText) and trainer.text.calls == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "did you mean steps"),
        ({"nonsense_setting": 3}, "no setting"),
        ({"steps": 0}, "whole number of at least 1, not 0"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"lr_low": float("nan")}, "lr_low"),
        ({"lr_low": "fast"}, "number"),
        ({"shuffle": 1.5}, "from 0 to 1"),
        ({"rsc": "mine"}, "text, official"),
        ({"null": "nothing"}, "auto, empty, without, replace"),
        ({"height": 100}, "multiple of 16"),
        ({"targets": []}, "targets"),
        ({"l_esd": 0, "l_attn": 0, "l_lora": 0, "l_rsc": 0}, "All four"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseError, match=message):
        TrainSettings.from_dict(values)


def test_wrong_blocks_and_targets_are_refused() -> None:
    with pytest.raises(EraseError, match="0 to 1"):
        make_trainer(replace(SETTINGS, attention_blocks=(2,)))
    with pytest.raises(EraseError, match="add_q_proj"):
        make_trainer(replace(SETTINGS, targets=("nothing",)))


def test_settings_survive_json() -> None:
    settings = replace(SETTINGS, attention_blocks=(0, 1), shift_mu=None, alpha=4.0)
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert TrainSettings.from_dict({}) == TrainSettings()


# --- the file ------------------------------------------------------------------------------------


def test_metadata_says_what_was_done_and_keeps_the_bytes_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    result = run()
    metadata = lora_metadata(result, CONCEPTS, SETTINGS, "tiny", "ab" * 32)
    assert ConceptSet.from_json(json.loads(metadata["erase.concepts"])) == CONCEPTS
    assert TrainSettings.from_dict(json.loads(metadata["erase.settings"])) == SETTINGS
    assert metadata["erase.date"] == "2023-11-14"
    assert metadata["erase.steps"] == metadata["ss_steps"] == "6"
    assert metadata["ss_base_model_version"] == "flux1"
    assert metadata["ss_network_dim"] == "2"
    losses = json.loads(metadata["erase.losses"])
    assert losses["esd"] == pytest.approx(sum(h["esd"] for h in result.history) / 6)
    for name in "abcd":  # the library alone would write metadata in random order
        result.lora.save(tmp_path / f"{name}.safetensors", metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    tensors, read = read_tensors(tmp_path / "a.safetensors")
    assert read == metadata
    assert same(tensors, result.lora.tensors())


# --- real text encoders --------------------------------------------------------------------------


def make_encoders() -> TextEncoders:
    """A T5 and a CLIP of a few hundred random weights, over a tokenizer of whole words."""
    texts = plan(replace(SETTINGS, erase_rollouts=12)).texts()
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "</s>", *words])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    size = len(vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        t5 = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        clip = CLIPTextConfig(
            vocab_size=size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=2,
        )
        t5_model, clip_model = T5EncoderModel(t5).eval(), CLIPTextModel(clip).eval()
    return TextEncoders(clip_model, tokenizer, t5_model, tokenizer, LENGTH)


def test_real_text_encoders_serve_a_run() -> None:
    result = Trainer(make_tree(), CONFIG, make_encoders(), CONCEPTS, SETTINGS).run()
    assert result.stopped == "done"
    assert list(result.history[-1]) == ["esd", "attn", "lora", "rsc"]


def test_a_concept_past_the_truncation_length_is_refused() -> None:
    encoders = replace(make_encoders(), t5_length=4)
    concept = replace(TIGER, sentences=("a photo of a house and a tiger",))
    with pytest.raises(EraseError, match="lies past the 4 tokens"):
        Trainer(make_tree(), CONFIG, encoders, ConceptSet((concept,)), SETTINGS).run()
