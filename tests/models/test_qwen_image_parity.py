"""Our Qwen-Image forward against diffusers' own: outputs, gradients, attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.models.transformers import transformer_qwenimage
from finite import Rows, outcome, randomise, slopes
from models.parity import difference, draw, gradients
from torch import Tensor, nn

from erase_core.models.base import Conditioning, Probe
from erase_core.models.flux1.forward import patchify, unpatchify
from erase_core.models.load import _widen_at_use
from erase_core.models.qwen_image.config import QwenImageConfig
from erase_core.models.qwen_image.forward import qwen_image_forward
from erase_core.models.qwen_image.names import skeleton
from erase_core.models.qwen_image.parity import diffusers_model, diffusers_velocity
from erase_core.models.qwen_image.tree import QwenImage

SMALL = QwenImageConfig(context_in_dim=40, hidden_size=256, num_heads=2, depth=3)
BATCH, TEXT, HEIGHT, WIDTH = 3, 7, 6, 10  # an odd number of rows and of columns of tokens
OWN = torch.tensor([3, 6, 6])
MASK = torch.arange(TEXT) < OWN[:, None]
SIGMA = torch.tensor([0.125, 0.5, 1.0])


def pair(config: QwenImageConfig, dtype: torch.dtype = torch.float64) -> tuple[Any, QwenImage]:
    """diffusers' model and our tree of the same random weights, with gradients."""
    model = randomise(diffusers_model(config)).to(dtype).requires_grad_()
    tree = QwenImage(config).to(dtype)
    tree.load_state_dict(model.state_dict())
    return model, tree


def inputs() -> tuple[Tensor, Tensor]:
    """Latents and text states with gradients."""
    latents = draw(BATCH, 16, HEIGHT, WIDTH).requires_grad_()
    return latents, draw(BATCH, TEXT, SMALL.context_in_dim, seed=2).requires_grad_()


def run_theirs(model: Any, latents: Tensor, context: Tensor) -> Tensor:
    img, rows, columns = patchify(latents)
    shapes = [[(1, rows, columns)]] * len(img)
    out = model(img, context, MASK, SIGMA.to(img), shapes, return_dict=False)[0]
    return unpatchify(out, rows, columns)


def run_ours(tree: nn.Module, latents: Tensor, context: Tensor) -> Tensor:
    found = qwen_image_forward(tree, latents, SIGMA, Conditioning(context, mask=MASK)).velocity
    assert found is not None
    return found


def test_outputs_and_gradients_equal_diffusers() -> None:
    (model, tree), given = pair(SMALL), inputs()
    expected, found = run_theirs(model, *given), run_ours(tree, *given)
    assert found.std() > 0.1
    assert difference(found, expected) < 1e-6
    weights = draw(*found.shape, seed=3)
    theirs = gradients((expected * weights).sum(), model, *given, unused=True)
    ours = gradients((found * weights).sum(), tree, *given, unused=True)
    assert ours.keys() == theirs.keys()
    silent = {key for key in ours if not theirs[key].any()}
    last = f"transformer_blocks.{SMALL.depth - 1}"  # whose text nobody reads
    parts = "txt_mlp", "attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out"
    assert silent == {k for k in ours if k.startswith(tuple(f"{last}.{part}." for part in parts))}
    assert not any(ours[key].any() for key in silent)
    heard = ours.keys() - silent
    worst = max((difference(ours[key], theirs[key]), key) for key in heard)
    assert worst[0] < 1e-5, worst


def test_a_prompt_draws_what_it_draws_alone() -> None:
    """Whatever longer ones the batch has; without a mask all tokens are read."""
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        together = run_ours(tree, latents, context)
        for row, count in enumerate(OWN.tolist()):
            alone = Conditioning(context[row : row + 1, :count])
            found = qwen_image_forward(tree, latents[row : row + 1], SIGMA[row], alone).velocity
            assert found is not None
            assert difference(found, together[row : row + 1]) < 1e-6


def test_gradients_are_finite_differences() -> None:
    tree, (latents, context) = randomise(QwenImage(SMALL)), inputs()
    x, attn = latents.detach().float(), tree.transformer_blocks[0].get_submodule("attn")
    asked = {
        "input": Rows(x),
        "txt_in": Rows(tree.txt_in.weight),
        "q": Rows(attn.get_parameter("add_q_proj.weight")),
        "k": Rows(attn.get_parameter("add_k_proj.weight")),
    }
    found = slopes(lambda: run_ours(tree, x, context.detach().float()), asked)
    assert outcome(found) == "right", found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_weights_compute_as_diffusers(dtype: torch.dtype) -> None:
    """In bfloat16, its weights in fp8 for the one."""
    tree = pair(SMALL)[1].to(torch.bfloat16).requires_grad_(False)
    if dtype.itemsize == 1:
        state = {name: t.to(dtype) if t.ndim == 2 else t for name, t in tree.state_dict().items()}
        tree = skeleton(SMALL).requires_grad_(False)
        scales = {"txt_in": 0.5, "transformer_blocks.0.attn.add_k_proj": 0.5}
        _widen_at_use(tree, state, scales)
        tree.load_state_dict(state, assign=True)
    latents, context = (tensor.detach().float() for tensor in inputs())
    with torch.no_grad():
        found = run_ours(tree, latents, context)
    cond = Conditioning(context, mask=MASK)
    expected = diffusers_velocity(tree, SMALL, latents, SIGMA, cond, None)
    assert difference(found, expected) < 0.02


def test_a_tree_of_no_storage_has_diffusers_shapes() -> None:
    config = QwenImageConfig()
    model = diffusers_model(config, "meta")
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    own = {name: tuple(t.shape) for name, t in skeleton(config).state_dict().items()}
    assert own == shapes
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 2) == 20.43
    assert QwenImageConfig.from_shapes(shapes) == config


def test_checkpointed_gradients_are_identical() -> None:
    tree, given, words = pair(SMALL)[1], inputs(), torch.ones(BATCH, 1, TEXT)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        probe = Probe((0, 2), words, chunk=4)
        cond = Conditioning(given[1], mask=MASK)
        out = qwen_image_forward(tree, given[0], SIGMA, cond, probe=probe, checkpoint=checkpoint)
        assert out.velocity is not None and out.attention is not None
        loss = out.velocity.sum() + out.attention.square().sum()
        return gradients(loss, tree, *given, unused=True)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_probed_attention_is_the_explicit_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the image's tokens to the prompt's."""
    (model, tree), given, explicit = pair(SMALL), inputs(), []
    real = transformer_qwenimage.dispatch_attention_fn

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(128)
        scores = scores.masked_fill(~kwargs["attn_mask"], -math.inf)
        explicit.append(scores.softmax(-1)[:, :, TEXT:, :TEXT])
        return real(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_qwenimage, "dispatch_attention_fn", record)
    run_theirs(model, *given)
    assert len(explicit) == SMALL.depth
    words = torch.zeros(BATCH, 2, 512)  # as long as an encoder's longest prompt
    words[:, 0, 1:3] = 1
    words[:, 1, 2] = 0.5
    cond = Conditioning(given[1], mask=MASK)
    for blocks in ((1,), (2, 0)):
        out = qwen_image_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words))
        expected = [
            torch.einsum("bhql,bwl->bwhq", explicit[b], words[..., :TEXT].double()) for b in blocks
        ]
        assert out.attention is not None
        assert difference(out.attention, torch.stack(expected, dim=1)) < 1e-6
        stop = Probe(blocks, words, stop=True)
        stopped = qwen_image_forward(tree, given[0], SIGMA, cond, probe=stop)
        assert stopped.velocity is None and stopped.attention is not None
        assert torch.equal(stopped.attention, out.attention)


def test_a_word_has_a_place() -> None:
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        plain, turned = (
            qwen_image_forward(tree, latents, SIGMA, Conditioning(states)).velocity
            for states in (context, context.flip(1))
        )
    assert plain is not None and turned is not None
    assert difference(turned, plain) > 0.01


def test_odd_latents_are_filled_up_and_cropped() -> None:
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        found = run_ours(tree, latents[:, :, :5, :9], context)
    assert found.shape == (BATCH, 16, 5, 9) and found.isfinite().all()
