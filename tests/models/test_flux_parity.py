"""Our Flux forward against diffusers' FluxTransformer2DModel: outputs, gradients, attention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from erase_core.models.attention import probe_attention
from erase_core.models.base import Conditioning, Output, Probe
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import flux_forward, velocity
from erase_core.models.flux1.names import NAMING, tree_keys
from erase_core.models.flux1.tree import Flux

DEV = FluxConfig(
    vec_in_dim=24, context_in_dim=40, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2
)
SCHNELL = replace(DEV, guidance_embed=False)
CONFIGS = pytest.mark.parametrize("config", [DEV, SCHNELL], ids=["dev", "schnell"])
BATCH, TEXT, HEIGHT, WIDTH = 3, 7, 6, 10  # 3 x 5 image tokens
IMAGE = HEIGHT * WIDTH // 4


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Weights of unit gain, nothing zero or one."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
            if p.ndim == 2:
                p.copy_(noise / p.shape[1] ** 0.5)
            else:
                p.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))


def diffusers_model(config: FluxConfig, dtype: torch.dtype) -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        in_channels=config.in_channels,
        num_layers=config.depth,
        num_single_layers=config.depth_single_blocks,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        pooled_projection_dim=config.vec_in_dim,
        guidance_embeds=config.guidance_embed,
    )
    randomise(model.to(dtype))
    return model


def our_model(model: FluxTransformer2DModel, config: FluxConfig) -> Flux:
    tree = Flux(config).to(model.dtype)
    tree.load_state_dict(tree_keys(NAMING.to_bfl(model.state_dict())))
    return tree


@dataclass(frozen=True)
class Inputs:
    """One batch; all rows differ. Noise levels are exact in float32."""

    latents: Tensor
    sigma: Tensor
    cond: Conditioning
    weights: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.latents, self.cond.context, self.cond.pooled]


def inputs(dtype: torch.dtype, seed: int = 1) -> Inputs:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    cond = Conditioning(draw(BATCH, TEXT, DEV.context_in_dim), draw(BATCH, DEV.vec_in_dim))
    latents = draw(BATCH, 16, HEIGHT, WIDTH)
    sigma = torch.tensor([0.125, 0.59375, 1.0], dtype=dtype)
    return Inputs(latents, sigma, cond, draw(*latents.shape).detach())


def diffusers_velocity(model: FluxTransformer2DModel, x: Inputs, guidance: float | None) -> Tensor:
    packed = FluxPipeline._pack_latents(x.latents, BATCH, 16, HEIGHT, WIDTH)
    place = FluxPipeline._prepare_latent_image_ids(
        BATCH, HEIGHT // 2, WIDTH // 2, packed.device, packed.dtype
    )
    out = model(
        hidden_states=packed,
        encoder_hidden_states=x.cond.context,
        pooled_projections=x.cond.pooled,
        timestep=x.sigma,
        img_ids=place,
        txt_ids=torch.zeros(TEXT, 3),
        guidance=None if guidance is None else torch.full((BATCH,), guidance, dtype=packed.dtype),
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(out, HEIGHT * 8, WIDTH * 8, 8)


def gradients(loss: Tensor, module: nn.Module, x: Inputs) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    keys = [*names, "latents", "context", "pooled"]
    return dict(zip(keys, torch.autograd.grad(loss, [*parameters, *x.leaves()]), strict=True))


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert b.norm() > 0
    return float((a - b).detach().norm() / b.detach().norm())


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=["f64", "f32"]
)


@CONFIGS
@PRECISIONS
def test_outputs_and_gradients_equal_diffusers(
    config: FluxConfig, dtype: torch.dtype, bound: float
) -> None:
    model, x = diffusers_model(config, dtype), inputs(dtype)
    tree, guidance = our_model(model, config), 3.5 if config.guidance_embed else None
    theirs = diffusers_velocity(model, x, guidance)
    ours = velocity(tree, x.latents, x.sigma, x.cond, guidance)
    assert ours.dtype == dtype
    assert ours.std() > 0.1
    assert difference(ours, theirs) < bound
    expected = tree_keys(NAMING.to_bfl(gradients((theirs * x.weights).sum(), model, x)))
    found = gradients((ours * x.weights).sum(), tree, x)
    assert found.keys() == expected.keys()
    worst = max((difference(found[key], expected[key]), key) for key in found)
    assert worst[0] < bound, worst


@CONFIGS
def test_checkpointed_gradients_are_identical(config: FluxConfig) -> None:
    tree, x = our_model(diffusers_model(config, torch.float32), config), inputs(torch.float32)

    def run(checkpoint: bool) -> dict[str, Tensor]:
        probe = Probe((0, 1), words(), chunk=4)
        out = flux_forward(
            tree, x.latents, x.sigma, x.cond, 3.5, probe=probe, checkpoint=checkpoint
        )
        assert out.velocity is not None and out.attention is not None
        return gradients((out.velocity * x.weights).sum() + out.attention.square().sum(), tree, x)

    plain, checkpointed = run(False), run(True)
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_checkpointing_recomputes_blocks() -> None:
    tree, x = our_model(diffusers_model(DEV, torch.float32), DEV), inputs(torch.float32)
    calls = []
    for block in (tree.double_blocks[1].img_attn.qkv, tree.single_blocks[0].linear1):
        block.register_forward_hook(lambda *_: calls.append(1))
    velocity(tree, x.latents, x.sigma, x.cond, 3.5, checkpoint=True).sum().backward()
    assert len(calls) == 4


def probed(tree: nn.Module, x: Inputs, probe: Probe) -> Output:
    return flux_forward(tree, x.latents, x.sigma, x.cond, 3.5, probe=probe)


def words() -> Tensor:
    """Token weights of two words; the second differs from row to row."""
    tokens = torch.zeros(BATCH, 2, TEXT)
    tokens[:, 0, 2:4] = 1
    for row in range(BATCH):
        tokens[row, 1, row : row + 3] = 0.5
    return tokens


def diffusers_attention(
    model: FluxTransformer2DModel, x: Inputs, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """Explicit softmax (B, heads, Q, L) of image queries to text keys, per attention call."""
    found = []
    real = transformer_flux.dispatch_attention_fn

    def record(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(128)
        whole = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(whole[:, :, TEXT:, :TEXT])
        return real(query, key, value, **kwargs)

    monkeypatch.setattr(transformer_flux, "dispatch_attention_fn", record)
    diffusers_velocity(model, x, 3.5)
    return found


@PRECISIONS
def test_probed_attention_is_the_explicit_softmax(
    dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = diffusers_model(DEV, dtype), inputs(dtype)
    tree = our_model(model, DEV)
    explicit = diffusers_attention(model, x, monkeypatch)
    for blocks in ((1,), (0, 1), (1, 0)):
        out = probed(tree, x, Probe(blocks, words()))
        expected = [
            torch.einsum("bhql,bwl->bwhq", explicit[block], words().to(dtype)) for block in blocks
        ]
        assert out.attention is not None
        assert out.attention.shape == (BATCH, len(blocks), 2, DEV.num_heads, IMAGE)
        assert difference(out.attention, torch.stack(expected, dim=1)) < bound
        assert out.velocity is not None
        plain = velocity(tree, x.latents, x.sigma, x.cond, 3.5)
        assert torch.equal(out.velocity, plain)


def test_chunks_change_neither_attention_nor_gradient() -> None:
    tree, x = our_model(diffusers_model(DEV, torch.float64), DEV), inputs(torch.float64)
    results = []
    for chunk in (1024, IMAGE, 4, 1):
        attention = probed(tree, x, Probe((0,), words(), stop=True, chunk=chunk)).attention
        assert attention is not None
        grad = torch.autograd.grad(attention.square().sum(), [x.latents, x.cond.context])
        results.append([attention, *grad])
    for other in results[1:]:
        assert all(difference(a, b) < 1e-12 for a, b in zip(other, results[0], strict=True))


def test_probe_never_holds_the_whole_matrix() -> None:
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel()
                for t in (out if isinstance(out, tuple) else (out,))
                if isinstance(t, Tensor)
            )
            return out

    q, k, tokens = torch.randn(1, 2, 256, 8), torch.randn(1, 2, 260, 8), torch.ones(1, 1, 4)
    q.requires_grad_()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with Sizes(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        probe_attention(q, k, tokens, 16).sum().backward()
    assert max(sizes) == 2 * 16 * 260
    assert sum(kept) < 2 * 256 * 260


def test_the_gradient_of_attention_is_right() -> None:
    """Against central differences along random directions, in float64."""
    tree, x = our_model(diffusers_model(DEV, torch.float64), DEV), inputs(torch.float64)
    leaves = [x.latents, x.cond.context, tree.double_blocks[1].txt_attn.qkv.weight]
    probe = Probe((1,), words(), stop=True, chunk=4)
    weights = inputs(torch.float64, 5).weights.flatten()[: BATCH * 2 * 2 * IMAGE]

    def loss() -> Tensor:
        attention = probed(tree, x, probe).attention
        assert attention is not None
        return (attention.flatten() * weights).sum()

    g = torch.Generator().manual_seed(6)
    for leaf, grad in zip(leaves, torch.autograd.grad(loss(), leaves), strict=True):
        direction = torch.randn(leaf.shape, generator=g, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                leaf.add_(direction, alpha=step)
                values.append(loss())
                leaf.sub_(direction, alpha=step)
        slope = (values[0] - values[1]) / 2e-5
        scale = float(grad.norm() * direction.norm())
        assert abs(slope - (grad * direction).sum()) < 1e-7 * scale
        assert abs(slope) > 1e-4 * scale


def test_stop_ends_after_the_last_probed_block() -> None:
    tree, x = our_model(diffusers_model(DEV, torch.float32), DEV), inputs(torch.float32)
    whole = probed(tree, x, Probe((0,), words()))
    calls = []
    for name in ("double_blocks.0.img_mlp.2", "double_blocks.1.img_attn.qkv", "final_layer.linear"):
        tree.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    stopped = probed(tree, x, Probe((0,), words(), stop=True))
    assert stopped.velocity is None
    assert stopped.attention is not None and whole.attention is not None
    assert torch.equal(stopped.attention, whole.attention)
    assert "double_blocks.1.img_attn.qkv" not in calls
    assert "final_layer.linear" not in calls
