"""Whatever computes can compute on a card: nothing is left behind, nothing meets what is elsewhere.

The card is a pretended one (see card.py): what it would compute, and how fast, shows on a true one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from card import Card, card
from methods.test_bench_methods import NAMES, erase, make_task, short
from safetensors.torch import load_file
from tiny import make_tree

from erase_core.cli.main import main
from erase_core.erasers.load import load
from erase_core.erasers.lora import EraserLora
from erase_core.evaluate import acceptance
from erase_core.evaluate.attacks import base as attack
from erase_core.evaluate.attacks import embedding, relearn, suffix
from erase_core.evaluate.judges.recogniser import RecogniserJudge
from erase_core.miniatures import miniflux

__all__ = ["short"]
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
META = torch.device("meta")
BRIEF = {
    "steps": 2, "batch": 1, "rollout_steps": 1, "erase_rollouts": 1, "keep_rollouts": 1,
    "checkpoint_every": 1, "refresh_every": 1,
}  # fmt: skip


@pytest.fixture
def a_card() -> Iterator[Card]:
    with card() as mode:
        yield mode


def test_the_card_refuses_what_a_card_would(a_card: Card) -> None:
    there, here = torch.zeros(2, device=META), torch.zeros(2)
    assert (there + there.sum() + torch.tensor(3.0)).device == META
    assert there[torch.tensor([0])].device == META
    assert there.cpu().tolist() == [0, 0] and there.sum().item() == 0
    generator = torch.Generator().manual_seed(0)
    for refused in (
        lambda: there + here,
        lambda: torch.stack([there, here]),
        lambda: here[torch.zeros(1, dtype=torch.long, device=META)],
        lambda: torch.randn(2, generator=generator, device=META),
    ):
        with pytest.raises(RuntimeError, match="meets"):
            refused()


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniFlux's own settings, adversaries among them, for two iterations."""
    robust = miniflux.PRESETS["eraseanything"]["robust"]["all"]
    own = {"eraseanything": {"robust": {"all": robust | BRIEF}}}
    monkeypatch.setattr(miniflux, "PRESETS", own)


def run(mode: Card, *argv: object) -> None:
    """A command there, and something of it computes there."""
    before = mode.calls
    assert main([*map(str, argv), "--device", "meta"]) == 0
    assert mode.calls > before + 1000


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("memory", ["auto", "0.016"])
def test_training_and_going_on(a_card: Card, tmp_path: Path, memory: str) -> None:
    lora, folder = tmp_path / "tiger.safetensors", tmp_path / "kept"
    options = ["--memory", memory, "--out", lora]
    run(a_card, "train", "--concept", "tiger", "--checkpoints", folder, *options)
    run(a_card, "train", "--resume", folder, "--steps", 3, "--overwrite", *options)
    assert len(load(lora, miniflux.load()).tensors()) > 10


def test_drawing(a_card: Card, tmp_path: Path) -> None:
    lora = EraserLora.create(miniflux.load().slots(["add_k_proj"]))
    lora.save(tmp_path / "lora.safetensors")
    options = ["--prompt", "a tiger", "--lora", tmp_path / "lora.safetensors", "--steps", 2]
    run(a_card, "generate", *options, "--out", tmp_path / "picture.png")
    run(a_card, "attention", *options, "--words", "tiger", "--out", tmp_path / "maps.png")


@pytest.mark.usefixtures("briefly")
def test_acceptance(a_card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "TIMED", 2)
    options = ["--steps", 3, "--batch", 1, "--draw-steps", 1]
    run(a_card, "accept", *options, "--out", tmp_path / "accepted")


# --- the benchmark -------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", NAMES)
def test_a_method(a_card: Card, name: str, tmp_path: Path) -> None:
    task = make_task(tree=make_tree().to(META))
    eraser = erase(name, task)
    assert {p.device for p in eraser.parameters()} == {META}
    eraser.save(tmp_path / "eraser.safetensors", {})
    assert load_file(tmp_path / "eraser.safetensors").keys() == eraser.tensors().keys()


@pytest.mark.parametrize("name", attack.attacks())
def test_an_attack(a_card: Card, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = miniflux.load()
    lora = EraserLora.create(model.slots(["add_k_proj"])).to(META)
    target = attack.Target(
        replace(model, tree=model.tree.to(META)),
        RecogniserJudge(),
        lora,
        "tiger",
        count=2,
    )
    assert target.device == META
    monkeypatch.setattr(attack, "STEPS", 4)
    monkeypatch.setattr(embedding, "STEPS", 2)
    monkeypatch.setattr(relearn, "STEPS", 2)
    monkeypatch.setattr(suffix, "ROUNDS", 1)
    monkeypatch.setattr(suffix, "SOFT", 1)
    shown = attack.Target.shown
    seen: list[Any] = []

    def all_of_them(*args: Any) -> list[bool]:
        """What the recogniser says of black pictures, and then what an attack hopes for."""
        seen.append(shown(*args))
        return [True] * len(seen[-1])

    monkeypatch.setattr(attack.Target, "shown", all_of_them)
    assert attack.find_attack(name).run(target).value == 1
    assert seen and a_card.calls
