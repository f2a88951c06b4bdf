"""Chroma's files, text encoder, negative prompt and LoRA names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ChromaPipeline, ChromaTransformer2DModel
from safetensors.torch import save_file
from tiny import CHROMA, CHROMA_FAMILY, CONFIG, LENGTH, MaskedText, make_chroma, make_model
from torch import Tensor

from erase_core.erasers.load import load as load_eraser
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.miniatures import miniflux
from erase_core.models.base import Conditioning, Model, OpenText, Probe
from erase_core.models.chroma.names import NAMING
from erase_core.models.chroma.parity import diffusers_velocity
from erase_core.models.chroma.text import T5Text
from erase_core.models.files import family_of
from erase_core.models.flux1.names import file_keys, tree_keys
from erase_core.models.flux1.names import skeleton as flux_skeleton
from erase_core.models.flux1.tree import Flux
from erase_core.models.load import load

PROMPTS = ["a photo of a tiger", "a tiger in the deep snow"]
State = dict[str, Tensor]


def state_of(model: Model, layout: str) -> State:
    state = model.tree.state_dict()
    named = file_keys(state) if layout == "bfl" else NAMING.to_diffusers(state, CHROMA)
    return {name: tensor.contiguous() for name, tensor in named.items()}


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_files_come_back(layout: str, tmp_path: Path) -> None:
    model, path = make_chroma(), tmp_path / "chroma.safetensors"
    state = state_of(model, layout)
    scales = [name for name in state if name.endswith(".scale")]
    assert len(scales) == (CHROMA.approximator_layers + 4 * 2 + 2 if layout == "bfl" else 0)
    save_file(state, path)
    assert family_of(path) is CHROMA_FAMILY
    tree, config = load(CHROMA_FAMILY, path)
    assert config == CHROMA
    wanted = model.tree.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tree.state_dict().items())


def test_other_models_of_its_kind_are_refused_by_name(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_chroma(), "bfl")
    radiance = {n: t for n, t in state.items() if not n.startswith(("img_in", "final_layer"))}
    save_file(radiance | {"nerf_blocks.0.norm.scale": torch.ones(4)}, path)
    with pytest.raises(EraseError, match=r"model\.safetensors is a Chroma Radiance model.*choose"):
        family_of(path)
    config = replace(CONFIG, context_in_dim=3584)
    longcat = {
        name: torch.zeros(tensor.shape)
        for name, tensor in flux_skeleton(config).state_dict().items()
        if not name.startswith("vector_in")
    }
    save_file(longcat, path)
    with pytest.raises(EraseError, match=r"model\.safetensors is a LongCat-Image model.*choose"):
        family_of(path)


def test_a_damaged_file_says_what_it_lacks(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_chroma(), "bfl")
    save_file({n: t for n, t in state.items() if "final" not in n}, path)
    with pytest.raises(EraseError, match=r"lacks 2 tensors \(final_layer"):
        load(family_of(path), path)
    save_file({"distilled_guidance_layer.in_proj.weight": torch.ones(2, 2)}, path)
    with pytest.raises(EraseError, match=r"not a Chroma transformer \('img_in.weight' is missing"):
        load(family_of(path), path)


# --- the text encoder -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text() -> T5Text:
    own = miniflux.load_text()
    return T5Text(own.t5, own.t5_tokenizer, 24)


def test_prompts_are_encoded_as_diffusers_does(text: T5Text) -> None:
    pipeline: Any = SimpleNamespace(
        _execution_device=torch.device("cpu"), text_encoder=text.t5, tokenizer=text.tokenizer
    )
    encode = ChromaPipeline._get_t5_prompt_embeds
    prompts = ["a tiger", "", "two red cars left of a house on a blue background"]
    with torch.no_grad():
        states, mask = encode(pipeline, prompts, 1, max_sequence_length=24, dtype=torch.float32)
    found = text.encode(prompts)
    assert found.pooled is None and found.mask is not None
    assert torch.equal(found.mask.float(), mask)
    assert sorted(found.mask.sum(1).tolist()) == [2, 4, 14]
    read = found.mask[..., None]
    torch.testing.assert_close(found.context * read, states * read, atol=1e-5, rtol=1e-5)
    assert not (found.context * ~read).any()
    empty = found.negative
    assert empty is not None and torch.equal(empty.context[0], found.context[1])
    assert [len(rows) for rows in found.rows()] == found.mask.sum(1).tolist()


def test_it_can_be_looked_into(text: T5Text) -> None:
    assert isinstance(text, OpenText)
    prompts = ["a tiger", "a red car on a green background"]
    with torch.no_grad():
        states = text.states(text.table[text.tokens(prompts)])
    wanted = text.encode(prompts)
    assert states.mask is not None and wanted.mask is not None
    assert torch.equal(states.mask, wanted.mask)
    torch.testing.assert_close(states.context, wanted.context)
    assert states.negative is not None


# --- a negative prompt ----------------------------------------------------------------------------


def test_pictures_are_drawn_away_from_the_negative_prompt() -> None:
    model = make_chroma()
    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    cond = model.text.encode(PROMPTS)
    away = MaskedText()._masked([""]).select([0, 0])
    v, v_n = (diffusers_velocity(model.tree, CHROMA, x, sigma, c, None) for c in (cond, away))
    with torch.no_grad():
        found = model.velocity(x, sigma, cond, 4.0)
        torch.testing.assert_close(found, v_n + 4.0 * (v - v_n), atol=1e-5, rtol=1e-4)
        assert (found - v).norm() > 0.1 * v.norm()
        for guidance in (None, 1.0):
            torch.testing.assert_close(model.velocity(x, sigma, cond, guidance), v)
        other = replace(cond, negative=MaskedText()._masked(["a rose"]))
        assert not torch.allclose(model.velocity(x, sigma, other, 4.0), found)
    assert model.guidance(4.0) is None and model.drawing(4.0) == 4.0
    flux = make_model()
    assert flux.guidance(4.0) == flux.drawing(4.0) == 4.0


def test_sampling_is_guided_eulers() -> None:
    model, prompts = make_chroma(), PROMPTS[:1]
    cond, x = model.text.encode(prompts), model.noise([5])
    drawn = model.sample(cond, x, steps=3)
    negative = MaskedText()._masked([""])
    for high, low in zip(model.sigmas(3), model.sigmas(3)[1:], strict=False):
        v, v_n = (
            diffusers_velocity(model.tree, CHROMA, x, high, c, None) for c in (cond, negative)
        )
        x = x + (low - high) * (v_n + CHROMA_FAMILY.guidance * (v - v_n))
    torch.testing.assert_close(drawn, x, atol=1e-4, rtol=1e-4)


def test_the_eraser_acts_on_both_passes_and_the_probe_on_one() -> None:
    model, calls = make_chroma(), list[int]()
    cond = model.text.encode(PROMPTS)
    words = torch.stack([model.text.token_mask(p, "tiger") for p in PROMPTS])[:, None]

    def note(name: str, x: Tensor, y: Tensor) -> Tensor:
        if name == "txt_in":
            calls.append(x.shape[1])
        return y

    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        out = model.predict(x, sigma, cond, 4.0, note, probe=Probe((0,), words))
        assert calls == [7, 2]  # what is read of the prompts, and of the empty one
        plain = model.predict(x, sigma, cond, None, probe=Probe((0,), words))
    assert out.attention is not None and plain.attention is not None
    assert torch.equal(out.attention, plain.attention)


def test_a_conditioning_keeps_mask_and_negative() -> None:
    cond = MaskedText().encode(PROMPTS)
    assert cond.mask is not None and cond.negative is not None
    both = Conditioning.cat([cond.select([1]), cond.select([0])]).to(torch.float64)
    assert both.mask is not None and both.mask.dtype == torch.bool
    assert torch.equal(both.mask, cond.mask.flip(0))
    assert both.negative is not None and len(both.negative) == 1
    assert both.negative.context.dtype == torch.float64
    assert [len(row) for row in both.rows()] == [7, 6] and both.context.shape[1] == LENGTH


# --- LoRA names -----------------------------------------------------------------------------------


def test_roles_are_flux_ones_without_the_pooled_vector() -> None:
    config = type(CHROMA)()
    assert len(CHROMA_FAMILY.slots(config, ("add_q_proj", "text.k"))) == 2 * 19
    assert set(CHROMA_FAMILY.slots(config, ["text_in"])) == {"context_embedder"}
    with pytest.raises(EraseError, match="Unknown LoRA target pooled_in"):
        CHROMA_FAMILY.slots(config, ["pooled_in"])


def test_a_lora_is_diffusers_own() -> None:
    """Under its names, and of the same effect, for every role."""
    model = make_chroma()
    slots = model.slots(CHROMA_FAMILY.roles)
    lora = EraserLora.create(slots, rank=2, seed=1)
    generator = torch.Generator().manual_seed(2)
    lora.load_state(
        {k: 0.2 * torch.randn(v.shape, generator=generator) for k, v in lora.state().items()}
    )
    theirs = ChromaTransformer2DModel(
        num_layers=CHROMA.depth,
        num_single_layers=CHROMA.depth_single_blocks,
        num_attention_heads=CHROMA.num_heads,
        joint_attention_dim=CHROMA.context_in_dim,
        approximator_hidden_dim=CHROMA.approximator_width,
        approximator_layers=CHROMA.approximator_layers,
    )
    theirs.load_state_dict(NAMING.to_diffusers(model.tree.state_dict(), CHROMA))
    theirs.load_lora_adapter(lora.tensors(), prefix="transformer")
    assert sum("lora_A" in name for name, _ in theirs.named_parameters()) == len(slots)
    theirs.fuse_lora()
    theirs.unload_lora()
    merged = Model(**{**vars(model), "tree": type(model.tree)(CHROMA)})
    merged.tree.load_state_dict(tree_keys(NAMING.to_bfl(theirs.state_dict())))
    cond, x, sigma = model.text.encode(PROMPTS), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        changed, plain = (model.velocity(x, sigma, cond, None, e) for e in (lora, None))
        torch.testing.assert_close(changed, merged.velocity(x, sigma, cond, None))
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_a_flux_lora_of_the_pooled_vector_does_not_fit(tmp_path: Path) -> None:
    flux = make_model(Flux(CONFIG))
    lora = EraserLora.create(flux.slots(["pooled_in"]), rank=2)
    lora.save(tmp_path / "lora.safetensors")
    with pytest.raises(EraseError, match="lora.safetensors"):
        load_eraser(tmp_path / "lora.safetensors", make_chroma())
