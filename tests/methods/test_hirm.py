"""HiRM on MiniFlux's CLIP, against transformers with the changed weights in it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny import make_model

from erase_core.cli.main import main
from erase_core.concepts.sets import ConceptSet
from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.load import load
from erase_core.errors import EraseError
from erase_core.methods import hirm
from erase_core.methods.base import Task, find_method
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.concepts import concept
from erase_core.models.base import Model
from erase_core.models.flux1.text import TextEncoders, clip_name

TEXTS = ("a tiger on a red background", "two cars")
STAY = ("a car", "a rose on a green background", "a house", "a lion above a tree")
CONCEPTS = ConceptSet((concept("tiger"),))


@pytest.fixture(scope="module")
def model() -> Model:
    return miniflux.load(torch.float32)


def encoders(model: Model) -> TextEncoders:
    assert isinstance(model.text, TextEncoders)
    return model.text


def random_edit(text: TextEncoders) -> WeightEdit:
    edit = hirm.first_layer(text)
    generator = torch.Generator().manual_seed(0)
    for parameter in edit.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return edit


def test_clip_under_an_edit_is_clip_with_other_weights(model: Model) -> None:
    text = encoders(model)
    edit, changed = random_edit(text), copy.copy(text)
    changed.clip = copy.deepcopy(text.clip)
    for name, module in changed.clip.named_modules():
        if isinstance(module, torch.nn.Linear) and clip_name(name) in edit.changes:
            module.stored = module.stored.float() + edit.changes[clip_name(name)].detach()
    assert len(edit.changes) == 4
    before, wanted = text.encode(TEXTS), changed.encode(TEXTS)
    with text.under(edit):
        found = text.encode(TEXTS)
    torch.testing.assert_close(found.pooled, wanted.pooled, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.context, before.context, atol=0, rtol=0)
    assert not torch.allclose(found.pooled, before.pooled, atol=1e-2)
    torch.testing.assert_close(text.encode(TEXTS).pooled, before.pooled, atol=0, rtol=0)


def far(model: Model, edit: WeightEdit) -> tuple[float, float]:
    """How far a tiger's pooled vector is from its anchor's, and what stays from where it was."""
    text = encoders(model)
    with torch.no_grad():
        anchor, stays = hirm.pooled(text, ["a fox"]), hirm.pooled(text, STAY)
        with text.under(edit):
            tiger, stayed = hirm.pooled(text, ["a tiger"]), hirm.pooled(text, STAY)
    return float((tiger - anchor).norm()), float((stayed - stays).norm())


def trained(model: Model, more: str) -> WeightEdit:
    result = find_method(f"hirm steps=60 prompts=8 kept=1 lr=2e-4 {more}").erase(
        Task(model, CONCEPTS)
    )
    assert isinstance(result.eraser, WeightEdit)
    return result.eraser


def test_a_concept_ends_nearer_to_its_anchor_and_what_stays_is_held(model: Model) -> None:
    nothing = hirm.first_layer(encoders(model))
    held, free = (far(model, trained(model, f"preserve={weight}")) for weight in (10, 0))
    assert free[0] < 0.85 * far(model, nothing)[0]
    assert held[1] < 0.6 * free[1]


def test_a_random_direction_is_no_anchor(model: Model) -> None:
    """A concept ends where no prompt ever did; with an anchor it stays among them."""
    cosines = []
    for target in ("random", "anchor"):
        edit = trained(model, f"target={target} preserve=0")
        with torch.no_grad():
            plain = hirm.pooled(encoders(model), ["a tiger"])
            with encoders(model).under(edit):
                found = hirm.pooled(encoders(model), ["a tiger"])
        cosines.append(float(torch.cosine_similarity(found, plain)))
    assert cosines[0] < cosines[1] - 0.03


def test_its_file_goes_wherever_a_lora_goes(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clip.safetensors"
    edit = random_edit(encoders(model))
    edit.save(file)
    first = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.k_proj.diff"
    assert first in edit.tensors()
    loaded = load(file, model)
    plain, changed, again = (
        model.draw(["a tiger"], [0], eraser, steps=1) for eraser in (None, edit, loaded)
    )
    assert torch.equal(changed, again) and not torch.equal(changed, plain)
    pictures = []
    for more in ([], ["--lora", str(file)]):
        out = tmp_path / f"{len(more)}.png"
        assert (
            main(["generate", "--prompt", "a tiger", "--steps", "1", "--out", str(out), *more]) == 0
        )
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]
    words = ["--prompt", "a tiger", "--words", "tiger", "--steps", "1", "--lora", str(file)]
    assert main(["attention", *words, "--out", str(tmp_path / "map.png")]) == 1
    assert "changes the text encoder" in capsys.readouterr().err


def test_encoders_that_are_shut_are_refused() -> None:
    with pytest.raises(EraseError, match="command line"):
        find_method("hirm").erase(Task(make_model(), CONCEPTS))
