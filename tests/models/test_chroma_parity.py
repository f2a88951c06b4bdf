"""Our Chroma forward against diffusers' ChromaTransformer2DModel: outputs, gradients, attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import ChromaTransformer2DModel, FluxPipeline
from diffusers.models.transformers import transformer_flux
from finite import randomise
from models.parity import difference, draw, gradients
from torch import Tensor, nn

from erase_core.models.base import Conditioning, Probe
from erase_core.models.chroma.config import ChromaConfig
from erase_core.models.chroma.forward import chroma_forward, modulation_rows
from erase_core.models.chroma.names import NAMING, skeleton
from erase_core.models.chroma.parity import diffusers_velocity
from erase_core.models.chroma.tree import Chroma
from erase_core.models.flux1.names import tree_keys

SMALL = ChromaConfig(
    context_in_dim=40,
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    approximator_width=48,
    approximator_layers=2,
)
WHOLE = replace(SMALL, depth=19, depth_single_blocks=38, hidden_size=128, num_heads=1)
BATCH, TEXT, HEIGHT, WIDTH = 3, 7, 6, 10  # 3 x 5 image tokens
SIGMA = torch.tensor([0.125, 0.59375, 1.0])
LONG = torch.tensor([7, 3, 5])  # tokens that are read
MASK = torch.arange(TEXT) < LONG[:, None]


def theirs(config: ChromaConfig) -> Any:
    return ChromaTransformer2DModel(
        num_layers=config.depth,
        num_single_layers=config.depth_single_blocks,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        approximator_hidden_dim=config.approximator_width,
        approximator_layers=config.approximator_layers,
    )


def pair(config: ChromaConfig, dtype: torch.dtype = torch.float64) -> tuple[Any, Chroma]:
    """diffusers' model and our tree of the same random weights, with gradients."""
    model = randomise(theirs(config)).to(dtype).requires_grad_()
    tree = Chroma(config).to(dtype)
    tree.load_state_dict(tree_keys(NAMING.to_bfl(model.state_dict())))
    return model, tree


def inputs(config: ChromaConfig = SMALL) -> tuple[Tensor, Tensor]:
    """Latents and text states with gradients."""
    latents = draw(BATCH, 16, HEIGHT, WIDTH).requires_grad_()
    return latents, draw(BATCH, TEXT, config.context_in_dim, seed=2).requires_grad_()


def run_theirs(model: Any, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        mask = torch.cat([mask, mask.new_ones(BATCH, HEIGHT * WIDTH // 4)], dim=1)
    out = model(
        hidden_states=FluxPipeline._pack_latents(latents, BATCH, 16, HEIGHT, WIDTH),
        encoder_hidden_states=context,
        timestep=SIGMA.to(latents),
        img_ids=FluxPipeline._prepare_latent_image_ids(
            BATCH, HEIGHT // 2, WIDTH // 2, latents.device, latents.dtype
        ),
        txt_ids=torch.zeros(TEXT, 3),
        attention_mask=mask,
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(out, HEIGHT * 8, WIDTH * 8, 8)


def run_ours(tree: nn.Module, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    found = chroma_forward(tree, latents, SIGMA, Conditioning(context, mask=mask)).velocity
    assert found is not None
    return found


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_outputs_and_gradients_equal_diffusers(mask: Tensor | None) -> None:
    (model, tree), given = pair(SMALL), inputs()
    expected, found = run_theirs(model, *given, mask), run_ours(tree, *given, mask)
    assert found.std() > 0.1
    assert difference(found, expected) < 1e-6
    weights = draw(*found.shape, seed=3)
    slopes = gradients((expected * weights).sum(), model, *given)
    slopes = tree_keys(NAMING.to_bfl(slopes))
    ours = gradients((found * weights).sum(), tree, *given)
    assert ours.keys() == slopes.keys()
    worst = max((difference(ours[key], slopes[key]), key) for key in ours)
    assert worst[0] < 1e-5, worst


def test_the_published_depth_equals_diffusers() -> None:
    (model, tree), given = pair(WHOLE, torch.float32), inputs(WHOLE)
    latents, context = (tensor.detach().float() for tensor in given)
    with torch.no_grad():
        expected = run_theirs(model, latents, context, MASK)
        found = run_ours(tree, latents, context, MASK)
    assert found.dtype == torch.float32
    assert difference(found, expected) < 1e-4
    cond = Conditioning(context, mask=MASK)
    witness = diffusers_velocity(tree, WHOLE, latents, SIGMA, cond, 4.0)
    assert difference(witness, expected) < 1e-5


def test_there_are_344_modulations() -> None:
    places = modulation_rows(WHOLE.depth, WHOLE.depth_single_blocks)
    assert places[""] == theirs(WHOLE).time_text_embed.mod_proj.shape[0] == 344
    assert list(places.values()) == sorted(places.values())
    assert places["final_layer.adaLN_modulation.1"] == 342


def test_a_tree_of_no_storage_has_diffusers_shapes() -> None:
    with torch.device("meta"):
        model = theirs(ChromaConfig())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    state = skeleton(ChromaConfig()).state_dict()
    split = NAMING.to_diffusers(state, ChromaConfig())
    assert {name: tuple(tensor.shape) for name, tensor in split.items()} == shapes
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 1) == 8.9
    bare = tree_keys(NAMING.to_bfl(split))
    assert ChromaConfig.from_shapes({n: tuple(t.shape) for n, t in bare.items()}) == ChromaConfig()


def test_checkpointed_gradients_are_identical() -> None:
    tree, given, words = pair(SMALL)[1], inputs(), torch.ones(BATCH, 1, TEXT)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        cond = Conditioning(given[1], mask=MASK)
        probe = Probe((0, 1), words, chunk=4)
        out = chroma_forward(tree, given[0], SIGMA, cond, probe=probe, checkpoint=checkpoint)
        assert out.velocity is not None and out.attention is not None
        return gradients(out.velocity.sum() + out.attention.square().sum(), tree, *given)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_probed_attention_is_the_explicit_softmax(
    mask: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model, tree), given, explicit = pair(SMALL), inputs(), []
    real = transformer_flux.dispatch_attention_fn

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(128)
        seen = kwargs.get("attn_mask")
        weights = scores.exp() * (1.0 if seen is None else seen)
        explicit.append((weights / weights.sum(-1, keepdim=True))[:, :, TEXT:, :TEXT])
        return real(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_flux, "dispatch_attention_fn", record)
    run_theirs(model, *given, mask)
    words = torch.zeros(BATCH, 2, TEXT)
    words[:, 0, 1:3] = 1
    words[:, 1, 2] = 0.5
    cond = Conditioning(given[1], mask=mask)
    for blocks in ((1,), (1, 0)):
        out = chroma_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words))
        expected = [torch.einsum("bhql,bwl->bwhq", explicit[b], words.double()) for b in blocks]
        assert out.attention is not None
        assert difference(out.attention, torch.stack(expected, dim=1)) < 1e-6
        stopped = chroma_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words, stop=True))
        assert stopped.velocity is None and stopped.attention is not None
        assert torch.equal(stopped.attention, out.attention)


def test_what_nobody_reads_changes_nothing() -> None:
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        plain = run_ours(tree, latents, context, MASK)
        other = run_ours(tree, latents, torch.where(MASK[..., None], context, 9.0), MASK)
        assert torch.equal(plain, other)
        for row, count in enumerate(LONG.tolist()):  # alone, without any padding
            cond = Conditioning(context[row : row + 1, :count])
            alone = chroma_forward(tree, latents[row : row + 1], SIGMA[row : row + 1], cond)
            assert alone.velocity is not None
            assert difference(alone.velocity[0], plain[row]) < 1e-6


def test_words_are_probed_where_padding_is_left_out() -> None:
    tree, (latents, context) = pair(SMALL)[1], inputs()
    words = torch.zeros(BATCH, 1, TEXT)
    words[:, :, 1:3] = 1
    found = []
    for more in (0, 4):  # tokens that nobody reads
        padded = (F.pad(context, (0, 0, 0, more)), F.pad(MASK, (0, more)), F.pad(words, (0, more)))
        cond, probe = Conditioning(padded[0], mask=padded[1]), Probe((0, 1), padded[2])
        with torch.no_grad():
            found.append(chroma_forward(tree, latents, SIGMA, cond, probe=probe).attention)
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0], found[1])
