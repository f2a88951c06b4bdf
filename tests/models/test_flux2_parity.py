"""Our FLUX.2 forward against diffusers' Flux2Transformer2DModel: outputs, gradients, attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from finite import Rows, outcome, randomise, slopes
from models.parity import difference, draw, gradients
from torch import Tensor, nn

from erase_core.models.base import Conditioning, Probe
from erase_core.models.flux1.names import tree_keys
from erase_core.models.flux2.config import KLEIN_9B, Flux2Config
from erase_core.models.flux2.forward import flux2_forward
from erase_core.models.flux2.names import NAMING, skeleton
from erase_core.models.flux2.parity import diffusers_velocity
from erase_core.models.flux2.tree import Flux2
from erase_core.models.load import _widen_at_use

SMALL = Flux2Config(context_in_dim=40, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3)
BATCH, TEXT, HEIGHT, WIDTH = 3, 7, 3, 5
SIGMA = torch.tensor([0.125, 0.5, 1.0])  # of which diffusers' thousandfold are whole in bfloat16


def theirs(config: Flux2Config) -> Any:
    return Flux2Transformer2DModel(
        num_layers=config.depth,
        num_single_layers=config.depth_single_blocks,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        guidance_embeds=config.guidance_embed,
    )


def pair(config: Flux2Config, dtype: torch.dtype = torch.float64) -> tuple[Any, Flux2]:
    """diffusers' model and our tree of the same random weights, with gradients."""
    model = randomise(theirs(config)).to(dtype).requires_grad_()
    tree = Flux2(config).to(dtype)
    tree.load_state_dict(tree_keys(NAMING.to_bfl(model.state_dict())))
    return model, tree


def inputs() -> tuple[Tensor, Tensor]:
    """Latents and text states with gradients."""
    latents = draw(BATCH, 128, HEIGHT, WIDTH).requires_grad_()
    return latents, draw(BATCH, TEXT, SMALL.context_in_dim, seed=2).requires_grad_()


def run_theirs(model: Any, latents: Tensor, context: Tensor) -> Tensor:
    """By their pipeline's own packing and places."""
    ids = Flux2KleinPipeline._prepare_latent_ids(latents)
    out = model(
        hidden_states=Flux2KleinPipeline._pack_latents(latents),
        encoder_hidden_states=context,
        timestep=SIGMA.to(latents),
        img_ids=ids,
        txt_ids=Flux2KleinPipeline._prepare_text_ids(context),
        return_dict=False,
    )[0]
    return Flux2KleinPipeline._unpack_latents_with_ids(out, ids)


def run_ours(tree: nn.Module, latents: Tensor, context: Tensor) -> Tensor:
    found = flux2_forward(tree, latents, SIGMA, Conditioning(context)).velocity
    assert found is not None
    return found


def test_outputs_and_gradients_equal_diffusers() -> None:
    (model, tree), given = pair(SMALL), inputs()
    expected, found = run_theirs(model, *given), run_ours(tree, *given)
    assert found.std() > 0.1
    assert difference(found, expected) < 1e-6
    weights = draw(*found.shape, seed=3)
    slopes = tree_keys(NAMING.to_bfl(gradients((expected * weights).sum(), model, *given)))
    ours = gradients((found * weights).sum(), tree, *given)
    assert ours.keys() == slopes.keys()
    worst = max((difference(ours[key], slopes[key]), key) for key in ours)
    assert worst[0] < 1e-5, worst


def test_gradients_are_finite_differences() -> None:
    tree, (latents, context) = randomise(Flux2(SMALL)), inputs()
    x, qkv = latents.detach().float(), tree.get_parameter("double_blocks.0.txt_attn.qkv.weight")
    asked = {"input": Rows(x), "q": Rows(qkv, slice(0, 256)), "k": Rows(qkv, slice(256, 512))}
    found = slopes(lambda: run_ours(tree, x, context.detach().float()), asked)
    assert outcome(found) == "right", found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_weights_compute_as_diffusers(dtype: torch.dtype) -> None:
    """In bfloat16, its weights in fp8 for the one."""
    tree = pair(SMALL)[1].to(torch.bfloat16).requires_grad_(False)
    if dtype.itemsize == 1:
        state = {name: t.to(dtype) if t.ndim == 2 else t for name, t in tree.state_dict().items()}
        tree = skeleton(SMALL).requires_grad_(False)
        _widen_at_use(tree, state, {"txt_in": 0.5})
        tree.load_state_dict(state, assign=True)
    latents, context = (tensor.detach().float() for tensor in inputs())
    with torch.no_grad():
        found = run_ours(tree, latents, context)
    cond = Conditioning(context)
    expected = diffusers_velocity(tree, SMALL, latents, SIGMA, cond, None)
    assert difference(found, expected) < 0.02


@pytest.mark.parametrize(("config", "billions"), [(Flux2Config(), 3.9), (KLEIN_9B, 9.1)], ids=str)
def test_a_tree_of_no_storage_has_diffusers_shapes(config: Flux2Config, billions: float) -> None:
    with torch.device("meta"):
        model = theirs(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    split = NAMING.to_diffusers(skeleton(config).state_dict(), config)
    assert {name: tuple(tensor.shape) for name, tensor in split.items()} == shapes
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 1) == billions
    bare = tree_keys(NAMING.to_bfl(split))
    assert Flux2Config.from_shapes({n: tuple(t.shape) for n, t in bare.items()}) == config


def test_checkpointed_gradients_are_identical() -> None:
    tree, given, words = pair(SMALL)[1], inputs(), torch.ones(BATCH, 1, TEXT)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        probe = Probe((0, 1), words, chunk=4)
        cond = Conditioning(given[1])
        out = flux2_forward(tree, given[0], SIGMA, cond, probe=probe, checkpoint=checkpoint)
        assert out.velocity is not None and out.attention is not None
        return gradients(out.velocity.sum() + out.attention.square().sum(), tree, *given)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_probed_attention_is_the_explicit_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    (model, tree), given, explicit = pair(SMALL), inputs(), []
    real = transformer_flux2.dispatch_attention_fn

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(128)
        explicit.append(scores.softmax(-1)[:, :, TEXT:, :TEXT])
        return real(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_flux2, "dispatch_attention_fn", record)
    run_theirs(model, *given)
    words = torch.zeros(BATCH, 2, TEXT)
    words[:, 0, 1:3] = 1
    words[:, 1, 2] = 0.5
    cond = Conditioning(given[1])
    for blocks in ((1,), (1, 0)):
        out = flux2_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words))
        expected = [torch.einsum("bhql,bwl->bwhq", explicit[b], words.double()) for b in blocks]
        assert out.attention is not None
        assert difference(out.attention, torch.stack(expected, dim=1)) < 1e-6
        stopped = flux2_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words, stop=True))
        assert stopped.velocity is None and stopped.attention is not None
        assert torch.equal(stopped.attention, out.attention)


def test_a_word_has_a_place() -> None:
    """Unlike FLUX.1's: the same tokens in another order draw another picture."""
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        plain = run_ours(tree, latents, context)
        assert difference(run_ours(tree, latents, context.flip(1)), plain) > 0.01


def test_the_guidance_of_dev_is_told() -> None:
    config = replace(SMALL, guidance_embed=True)
    state = skeleton(config).state_dict()
    assert Flux2Config.from_shapes({n: tuple(t.shape) for n, t in state.items()}) == config
