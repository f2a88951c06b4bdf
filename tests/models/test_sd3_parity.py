"""Our Stable Diffusion 3 forward against diffusers' own: outputs, gradients, attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from finite import Rows, outcome, randomise, slopes
from models.parity import difference, draw, gradients
from torch import Tensor, nn

from erase_core.errors import EraseError
from erase_core.models.base import Conditioning, Probe
from erase_core.models.load import _widen_at_use
from erase_core.models.sd3.config import LARGE, SD3Config
from erase_core.models.sd3.forward import sd3_forward
from erase_core.models.sd3.names import from_diffusers, skeleton, to_diffusers
from erase_core.models.sd3.parity import diffusers_model, diffusers_velocity
from erase_core.models.sd3.tree import SD3

MEDIUM = SD3Config(
    context_in_dim=40, vec_in_dim=12, hidden_size=128, depth=3, dual=(0, 1), positions=8
)
KINDS = {  # as 3.5 medium, 3.5 large and the first one are built
    "medium": MEDIUM,
    "large": replace(MEDIUM, dual=()),
    "first": replace(MEDIUM, dual=(), qk_norm=False),
}
BATCH, TEXT, HEIGHT, WIDTH = 3, 7, 6, 10
SIGMA = torch.tensor([0.125, 0.5, 1.0])  # of which diffusers' thousandfold are whole in bfloat16
POOLED = draw(BATCH, MEDIUM.vec_in_dim, seed=4)


def pair(config: SD3Config, dtype: torch.dtype = torch.float64) -> tuple[Any, SD3]:
    """diffusers' model and our tree of the same random weights, with gradients."""
    model = randomise(diffusers_model(config)).to(dtype).requires_grad_()
    tree = SD3(config).to(dtype)
    tree.load_state_dict(from_diffusers(model.state_dict()))
    return model, tree


def inputs() -> tuple[Tensor, Tensor]:
    """Latents and text states with gradients."""
    latents = draw(BATCH, 16, HEIGHT, WIDTH).requires_grad_()
    return latents, draw(BATCH, TEXT, MEDIUM.context_in_dim, seed=2).requires_grad_()


def run_theirs(model: Any, latents: Tensor, context: Tensor) -> Tensor:
    return model(latents, context, POOLED.to(latents), 1000 * SIGMA.to(latents), return_dict=False)[
        0
    ]


def run_ours(tree: nn.Module, latents: Tensor, context: Tensor) -> Tensor:
    found = sd3_forward(tree, latents, SIGMA, Conditioning(context, POOLED)).velocity
    assert found is not None
    return found


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_outputs_and_gradients_equal_diffusers(config: SD3Config) -> None:
    (model, tree), given = pair(config), inputs()
    expected, found = run_theirs(model, *given), run_ours(tree, *given)
    assert found.std() > 0.1
    assert difference(found, expected) < 1e-6
    weights = draw(*found.shape, seed=3)
    slopes = from_diffusers(gradients((expected * weights).sum(), model, *given))
    ours = gradients((found * weights).sum(), tree, *given)
    assert ours.pop("pos_embed").any()  # a constant in diffusers
    assert ours.keys() == slopes.keys()
    silent = [key for key in ours if not slopes[key].any()]
    last = f"joint_blocks.{config.depth - 1}.context_block.attn.ln_q.weight"
    assert silent == ([last] if config.qk_norm else [])  # of a text that nobody writes
    assert not any(ours[key].any() for key in silent)
    worst = max((difference(ours[key], slopes[key]), key) for key in ours if key not in silent)
    assert worst[0] < 1e-5, worst


def test_gradients_are_finite_differences() -> None:
    tree, (latents, context) = randomise(SD3(MEDIUM)), inputs()
    x, text = latents.detach().float(), tree.joint_blocks[0].get_submodule("context_block")
    qkv = text.get_parameter("attn.qkv.weight")
    asked = {
        "input": Rows(x),
        "context_embedder": Rows(tree.context_embedder.weight),
        "y_embedder": Rows(tree.get_parameter("y_embedder.mlp.0.weight")),
        "q": Rows(qkv, slice(0, 128)),
        "k": Rows(qkv, slice(128, 256)),
    }
    found = slopes(lambda: run_ours(tree, x, context.detach().float()), asked)
    assert outcome(found) == "right", found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_weights_compute_as_diffusers(dtype: torch.dtype) -> None:
    """In bfloat16, its weights in fp8 for the one."""
    tree = pair(MEDIUM)[1].to(torch.bfloat16).requires_grad_(False)
    if dtype.itemsize == 1:
        state = {name: t.to(dtype) if t.ndim == 2 else t for name, t in tree.state_dict().items()}
        tree = skeleton(MEDIUM).requires_grad_(False)
        scales = {"context_embedder": 0.5, "joint_blocks.0.x_block.attn2.qkv": 0.5}
        _widen_at_use(tree, state, scales)
        tree.load_state_dict(state, assign=True)
    latents, context = (tensor.detach().float() for tensor in inputs())
    with torch.no_grad():
        found = run_ours(tree, latents, context)
    cond = Conditioning(context, POOLED.float())
    expected = diffusers_velocity(tree, MEDIUM, latents, SIGMA, cond, None)
    assert difference(found, expected) < 0.02


@pytest.mark.parametrize(("config", "billions"), [(SD3Config(), 2.24), (LARGE, 8.06)], ids=str)
def test_a_tree_of_no_storage_has_diffusers_shapes(config: SD3Config, billions: float) -> None:
    """The places, a constant, are counted apart: 0.23 and 0.09 billions."""
    with torch.device("meta"):
        model = diffusers_model(config)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    split = to_diffusers(skeleton(config).state_dict(), config)
    assert {name: tuple(tensor.shape) for name, tensor in split.items()} == shapes
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == billions
    bare = from_diffusers(split)
    assert SD3Config.from_shapes({n: tuple(t.shape) for n, t in bare.items()}) == config


def test_checkpointed_gradients_are_identical() -> None:
    tree, given, words = pair(MEDIUM)[1], inputs(), torch.ones(BATCH, 1, TEXT)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        probe = Probe((0, 2), words, chunk=4)
        cond = Conditioning(given[1], POOLED)
        out = sd3_forward(tree, given[0], SIGMA, cond, probe=probe, checkpoint=checkpoint)
        assert out.velocity is not None and out.attention is not None
        return gradients(out.velocity.sum() + out.attention.square().sum(), tree, *given)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_probed_attention_is_the_explicit_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the image's tokens to the prompt's, the last block's among them; never the second
    attention's."""
    (model, tree), given, explicit = pair(MEDIUM), inputs(), []
    real, image = F.scaled_dot_product_attention, (HEIGHT // 2) * (WIDTH // 2)

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        if key.shape[2] == image + TEXT:
            scores = query @ key.transpose(-1, -2) / math.sqrt(64)
            explicit.append(scores.softmax(-1)[:, :, :image, image:])  # their image comes first
        return real(query, key, value, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", record)
        run_theirs(model, *given)
    assert len(explicit) == MEDIUM.depth
    words = torch.zeros(BATCH, 2, TEXT)
    words[:, 0, 1:3] = 1
    words[:, 1, 2] = 0.5
    cond = Conditioning(given[1], POOLED)
    for blocks in ((1,), (2, 0)):
        out = sd3_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words))
        expected = [torch.einsum("bhql,bwl->bwhq", explicit[b], words.double()) for b in blocks]
        assert out.attention is not None
        assert difference(out.attention, torch.stack(expected, dim=1)) < 1e-6
        stopped = sd3_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words, stop=True))
        assert stopped.velocity is None and stopped.attention is not None
        assert torch.equal(stopped.attention, out.attention)


def test_a_word_has_no_place() -> None:
    """Among the text's tokens, as in FLUX.1: their order is the encoders' alone."""
    tree, (latents, context) = pair(MEDIUM)[1], inputs()
    with torch.no_grad():
        plain = run_ours(tree, latents, context)
        assert difference(run_ours(tree, latents, context.flip(1)), plain) < 1e-6


def test_odd_latents_are_filled_up_and_cropped() -> None:
    tree, (latents, context) = pair(MEDIUM)[1], inputs()
    with torch.no_grad():
        found = run_ours(tree, latents[:, :, :5, :9], context)
    assert found.shape == (BATCH, 16, 5, 9) and found.isfinite().all()


def test_a_picture_has_no_more_tokens_than_there_are_places() -> None:
    """Eight a side, of 16 px."""
    tree, context = pair(MEDIUM)[1], inputs()[1]
    assert run_ours(tree, draw(BATCH, 16, 16, 4), context).shape == (BATCH, 16, 16, 4)
    with pytest.raises(EraseError, match="at most 128 px a side; choose a smaller one"):
        run_ours(tree, draw(BATCH, 16, 4, 18), context)
