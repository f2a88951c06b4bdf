"""The trainer on a tiny random Flux: exactness, states, losses, and that it works."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    CONCEPTS,
    SETTINGS,
    TIGER,
    WordText,
    broken_by,
    make_trainer,
    make_tree,
    run,
    same,
    stop_at,
)
from torch import Tensor

from erase_core.concepts.sets import ConceptSet
from erase_core.methods.eraseanything.settings import NullPrompt
from erase_core.methods.eraseanything.trainer import Trainer, _wanted
from erase_core.models.base import Probe
from erase_core.models.flux1.forward import flux_forward, velocity
from erase_core.models.flux1.tree import Flux
from erase_core.training.progress import Progress
from erase_core.training.prompts import EncodedPrompts, plan_prompts
from erase_core.training.states import KeepPictures, Pictures, Rollouts


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
        result.eraser.save(tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("null", "targets"),
    [
        ("without", ("add_q_proj", "add_k_proj")),
        ("replace", ("add_q_proj", "add_k_proj", "add_v_proj")),  # another thing wants its values
    ],
)
def test_the_erase_loss_falls_and_the_velocity_moves_to_the_target(
    null: NullPrompt, targets: tuple[str, ...]
) -> None:
    settings = replace(
        SETTINGS,
        steps=60,
        lr_low=1e-2,
        l_attn=0.0,
        l_lora=0.0,
        l_rsc=0.0,
        rank=8,
        null=null,
        targets=targets,
    )
    trainer = make_trainer(settings, tree=sharp_tree())
    history = trainer.run().history
    first, last = (sum(h["esd"] for h in part) / 10 for part in (history[:10], history[-10:]))
    assert last < 0.6 * first


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
        with broken_by(RuntimeError):
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
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in result.eraser.parameters())


def test_activation_checkpointing_changes_nothing() -> None:
    plain, recomputed = run(), run(replace(SETTINGS, activation_checkpointing=True))
    for key, value in plain.eraser.state().items():
        torch.testing.assert_close(recomputed.eraser.state()[key], value, rtol=1e-3, atol=1e-6)


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


@pytest.mark.parametrize("guidance", [3.5, 1.0])
@pytest.mark.parametrize("along", ["concept", "null"])
def test_rollouts_are_euler_steps_of_their_prompts(along: str, guidance: float) -> None:
    """Kept velocities are those of both prompts, whichever the walk followed."""
    tree = sharp_tree()
    settings = replace(SETTINGS, guidance_rollout=guidance, null="replace", rollout_prompt=along)
    trainer = make_trainer(settings, tree=tree)
    trainer.run()
    erase, keep = rollouts(trainer)
    assert keep.sigmas[0] == 1.0 and keep.sigmas[-1] == 0.0
    plan = trainer.plan
    paths = [p.null if along == "null" else p.sentence.text for p in plan.erase]
    walked = [(keep, 0, plan.keep[0]), *((erase, row, paths[row]) for row in (0, 1))]
    for (states, row, text), step in itertools.product(walked, range(2)):
        v = base_velocity(tree, states, row, step, text, guidance)
        x = states.latents[row, step].float()
        x = x + (states.sigmas[step + 1] - states.sigmas[step]) * v
        torch.testing.assert_close(states.latents[row, step + 1].float(), x, rtol=0.02, atol=0.02)
    assert erase.null is not None
    for kept, text in (
        (erase.target, plan.erase[1].sentence.text),
        (erase.null, plan.erase[1].null),
    ):
        wanted = base_velocity(tree, erase, 1, 1, text, 3.5)
        torch.testing.assert_close(kept[1, 1], wanted, rtol=1e-4, atol=1e-5)


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
    plan_prompts(CONCEPTS, _wanted(settings), twin.generator)
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
