"""Our Z-Image forward against diffusers' own: outputs, gradients, attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers import transformer_z_image
from finite import Rows, outcome, randomise, slopes
from models.parity import difference, draw, gradients
from torch import Tensor, nn

from erase_core.models.base import Conditioning, Probe
from erase_core.models.load import _widen_at_use
from erase_core.models.zimage.config import ZImageConfig
from erase_core.models.zimage.forward import zimage_forward
from erase_core.models.zimage.names import from_diffusers, skeleton, to_diffusers
from erase_core.models.zimage.parity import diffusers_velocity
from erase_core.models.zimage.tree import ZImage

SMALL = ZImageConfig(
    context_in_dim=40, hidden_size=256, num_heads=2, depth=2, refiners=2, mlp_width=682
)
BATCH, TEXT, HEIGHT, WIDTH = 3, 37, 6, 10
OWN = torch.tensor([7, 32, 37])  # two of them are filled up to 32 tokens, one to 64
MASK = torch.arange(TEXT) < OWN[:, None]
SIGMA = torch.tensor([0.125, 0.5, 1.0])


def theirs(config: ZImageConfig) -> Any:
    return ZImageTransformer2DModel(
        dim=config.hidden_size,
        n_layers=config.depth,
        n_refiner_layers=config.refiners,
        n_heads=config.num_heads,
        n_kv_heads=config.num_heads,
        cap_feat_dim=config.context_in_dim,
    )


def pair(config: ZImageConfig, dtype: torch.dtype = torch.float64) -> tuple[Any, ZImage]:
    """diffusers' model and our tree of the same random weights, with gradients."""
    model = randomise(theirs(config)).to(dtype).requires_grad_()
    tree = ZImage(config).to(dtype)
    tree.load_state_dict(from_diffusers(model.state_dict()))
    return model, tree


def inputs() -> tuple[Tensor, Tensor]:
    """Latents and text states with gradients."""
    latents = draw(BATCH, 16, HEIGHT, WIDTH).requires_grad_()
    return latents, draw(BATCH, TEXT, SMALL.context_in_dim, seed=2).requires_grad_()


def run_theirs(model: Any, latents: Tensor, context: Tensor) -> Tensor:
    """As their pipeline calls it: prompts without padding, and the output's negative."""
    rows = [row[:count] for row, count in zip(context, OWN.tolist(), strict=True)]
    out = model(list(latents[:, :, None]), 1 - SIGMA.to(latents), rows, return_dict=False)[0]
    return -torch.stack(list(out))[:, :, 0]


def run_ours(tree: nn.Module, latents: Tensor, context: Tensor) -> Tensor:
    found = zimage_forward(tree, latents, SIGMA, Conditioning(context, mask=MASK)).velocity
    assert found is not None
    return found


def test_outputs_and_gradients_equal_diffusers() -> None:
    (model, tree), given = pair(SMALL), inputs()
    expected, found = run_theirs(model, *given), run_ours(tree, *given)
    assert found.std() > 0.1
    assert difference(found, expected) < 1e-6
    weights = draw(*found.shape, seed=3)
    slopes = from_diffusers(gradients((expected * weights).sum(), model, *given))
    ours = gradients((found * weights).sum(), tree, *given)
    assert ours.keys() == slopes.keys()
    worst = max((difference(ours[key], slopes[key]), key) for key in ours)
    assert worst[0] < 1e-5, worst


def test_a_prompt_draws_what_it_draws_alone() -> None:
    """Whatever longer ones the batch has; without a mask all tokens are read."""
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        together = run_ours(tree, latents, context)
        for row, count in enumerate(OWN.tolist()):
            alone = Conditioning(context[row : row + 1, :count])
            found = zimage_forward(tree, latents[row : row + 1], SIGMA[row], alone).velocity
            assert found is not None
            assert difference(found, together[row : row + 1]) < 1e-6


def test_gradients_are_finite_differences() -> None:
    tree, (latents, context) = randomise(ZImage(SMALL)), inputs()
    x, text = latents.detach().float(), tree.get_parameter("context_refiner.0.attention.qkv.weight")
    asked = {
        "input": Rows(x),
        "cap_embedder": Rows(tree.get_parameter("cap_embedder.1.weight")),
        "q": Rows(text, slice(0, 256)),
        "k": Rows(text, slice(256, 512)),
    }
    found = slopes(lambda: run_ours(tree, x, context.detach().float()), asked)
    assert outcome(found) == "right", found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_weights_compute_as_diffusers(dtype: torch.dtype) -> None:
    """In bfloat16, its weights in fp8 for the one."""
    tree = pair(SMALL)[1].to(torch.bfloat16).requires_grad_(False)
    if dtype.itemsize == 1:
        linears = {n for n, module in tree.named_modules() if isinstance(module, nn.Linear)}
        state = {
            name: t.to(dtype) if name.removesuffix(".weight") in linears else t
            for name, t in tree.state_dict().items()
        }
        tree = skeleton(SMALL).requires_grad_(False)
        _widen_at_use(tree, state, {"cap_embedder.1": 0.5, "layers.0.attention.qkv": 0.5})
        tree.load_state_dict(state, assign=True)
    latents, context = (tensor.detach().float() for tensor in inputs())
    with torch.no_grad():
        found = run_ours(tree, latents, context)
    cond = Conditioning(context, mask=MASK)
    expected = diffusers_velocity(tree, SMALL, latents, SIGMA, cond, None)
    assert difference(found, expected) < 0.02


def test_a_tree_of_no_storage_has_diffusers_shapes() -> None:
    config = ZImageConfig()
    with torch.device("meta"):
        model = theirs(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    split = to_diffusers(skeleton(config).state_dict())
    assert {name: tuple(tensor.shape) for name, tensor in split.items()} == shapes
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 2) == 6.15
    bare = from_diffusers(split)
    assert ZImageConfig.from_shapes({n: tuple(t.shape) for n, t in bare.items()}) == config


def test_checkpointed_gradients_are_identical() -> None:
    tree, given, words = pair(SMALL)[1], inputs(), torch.ones(BATCH, 1, TEXT)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        probe = Probe((0, 1), words, chunk=4)
        cond = Conditioning(given[1], mask=MASK)
        out = zimage_forward(tree, given[0], SIGMA, cond, probe=probe, checkpoint=checkpoint)
        assert out.velocity is not None and out.attention is not None
        return gradients(out.velocity.sum() + out.attention.square().sum(), tree, *given)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_probed_attention_is_the_explicit_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the image's own tokens to the prompt's, in the blocks that read both."""
    (model, tree), given, explicit = pair(SMALL), inputs(), []
    real, image = transformer_z_image.dispatch_attention_fn, (HEIGHT // 2) * (WIDTH // 2)

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(128)
        mask = kwargs.get("attn_mask")
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        explicit.append(scores.softmax(-1)[:, :, :image, 32:])  # their image comes first
        return real(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_z_image, "dispatch_attention_fn", record)
    run_theirs(model, *given)
    explicit = explicit[-SMALL.depth :]
    words = torch.zeros(BATCH, 2, 512)  # as long as an encoder's longest prompt
    words[:, 0, 1:3] = 1
    words[:, 1, 2] = 0.5
    cond = Conditioning(given[1], mask=MASK)
    for blocks in ((1,), (1, 0)):
        out = zimage_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words))
        expected = [
            torch.einsum("bhql,bwl->bwhq", explicit[b][..., :64], words[..., :64].double())
            for b in blocks
        ]
        assert out.attention is not None
        assert difference(out.attention, torch.stack(expected, dim=1)) < 1e-6
        stopped = zimage_forward(tree, given[0], SIGMA, cond, probe=Probe(blocks, words, stop=True))
        assert stopped.velocity is None and stopped.attention is not None
        assert torch.equal(stopped.attention, out.attention)


def test_a_gap_in_a_prompt_is_filled() -> None:
    """As where an attack's tokens stand at its end: all up to them are seen."""
    tree, (latents, context) = pair(SMALL)[1], inputs()
    count = torch.arange(TEXT)
    gap = Conditioning(context, mask=((count < 7) | (count >= TEXT - 2)).expand(BATCH, -1))
    out = zimage_forward(tree, latents, SIGMA, gap).velocity
    assert out is not None
    (slope,) = torch.autograd.grad(out.square().sum(), context)
    moved = slope.abs().sum((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [*range(7), TEXT - 2, TEXT - 1]


def test_odd_latents_are_filled_up_and_cropped() -> None:
    tree, (latents, context) = pair(SMALL)[1], inputs()
    with torch.no_grad():
        found = run_ours(tree, latents[:, :, :5, :9], context)
    assert found.shape == (BATCH, 16, 5, 9) and found.isfinite().all()
