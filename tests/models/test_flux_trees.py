"""The forward over any tree of BFL names, at any latent size, with any adapter.

Our own tree is the reference here; test_flux_parity.py compares that one with diffusers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from erase_core.models.base import Adapter, Conditioning
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import velocity
from erase_core.models.flux1.names import file_keys
from erase_core.models.flux1.tree import Flux

DEV = FluxConfig(
    vec_in_dim=24, context_in_dim=40, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2
)
SCHNELL = replace(DEV, guidance_embed=False)
SIGMA = torch.tensor([0.125, 0.59375, 1.0])


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


LATENTS = draw(3, 16, 6, 10, seed=0)
COND = Conditioning(draw(3, 7, 40, seed=1), draw(3, 24, seed=2))


def flux(config: FluxConfig = DEV) -> Flux:
    """Weights of unit gain in float64, nothing zero or one."""
    tree = Flux(config).double().requires_grad_(False)
    for seed, (name, p) in enumerate(tree.named_parameters()):
        offset = 0.0 if name.endswith("bias") else 1.0
        noise = draw(*p.shape, seed=seed)
        p.copy_(noise / p.shape[1] ** 0.5 if p.ndim == 2 else 0.2 * noise + offset)
    return tree


def run(
    tree: nn.Module,
    latents: Tensor = LATENTS,
    guidance: float | Tensor | None = 3.5,
    eraser: Adapter | None = None,
) -> Tensor:
    with torch.no_grad():
        return velocity(tree, latents, SIGMA, COND, guidance, eraser=eraser)


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and b.norm() > 0
    return float((a - b).norm() / b.norm())


class Norm(nn.Module):
    """An RMS norm as hosts write it; its weight has the given name and may be stored in fp8."""

    def __init__(self, weight: Tensor, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(weight, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_parameter(self.name).to(x.dtype)
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


class Node(nn.ModuleList):
    """A module that cannot be called and has nothing but its children's names."""


def foreign_tree(state: dict[str, Tensor], norm: str) -> nn.Module:
    """BFL's module names around none of our classes; ``norm`` names the norms' weights."""
    root = Node()
    for key in (k for k in state if not k.endswith(".bias")):
        path, _, _ = key.rpartition(".")
        *parents, leaf = path.split(".")
        node: nn.Module = root
        for name in parents:
            if name not in dict(node.named_children()):
                node.add_module(name, Node())
            node = node.get_submodule(name)
        bias = state.get(f"{path}.bias")
        if bias is None:
            node.add_module(leaf, Norm(state[key], norm))
        else:
            linear = nn.Linear(*reversed(state[key].shape))
            linear.weight, linear.bias = nn.Parameter(state[key]), nn.Parameter(bias)
            node.add_module(leaf, linear)
    return root


@pytest.mark.parametrize("norm", ["scale", "weight"])
def test_a_foreign_tree_computes_the_same_and_stays_as_it_is(norm: str) -> None:
    state = file_keys(flux().state_dict())
    tree = foreign_tree(state, norm)
    assert difference(run(tree), run(flux())) < 1e-12
    assert FluxConfig.from_tree(tree) == DEV
    assert all(
        torch.equal(a, b) for a, b in zip(tree.state_dict().values(), state.values(), strict=True)
    )


def test_norms_stored_in_fp8_do_not_coarsen_queries() -> None:
    state = {k: v.float() for k, v in file_keys(flux().state_dict()).items()}
    small = {k: v.to(torch.float8_e4m3fn) if "_norm" in k else v for k, v in state.items()}
    rounded = {k: v.float() for k, v in small.items()}
    a, b = (run(foreign_tree(s, "scale"), LATENTS.float()) for s in (small, rounded))
    assert difference(a, b) < 1e-5


@pytest.mark.parametrize("config", [DEV, SCHNELL], ids=["dev", "schnell"])
def test_guidance_matters_to_dev_only(config: FluxConfig) -> None:
    tree = flux(config)
    one, high, none = (run(tree, guidance=g) for g in (1.0, 3.5, None))
    rows = run(tree, guidance=torch.tensor([1.0, 3.5, 3.5]))
    assert torch.equal(one, high) == torch.equal(high, none) == (config is SCHNELL)
    assert difference(rows, torch.cat([one[:1], high[1:]])) < 1e-12


def test_odd_latents_are_padded_as_comfyui_does() -> None:
    tree, odd = flux(), LATENTS[:, :, :5, :9]
    wide = torch.cat([odd, odd[..., :1]], dim=-1)
    whole = torch.cat([wide, wide[:, :, :1]], dim=-2)
    assert difference(run(tree, odd), run(tree, whole)[:, :, :5, :9]) < 1e-12


def test_every_linear_takes_an_adapter() -> None:
    """Full-rank changes through ``eraser`` at all Linears equal the same changes merged."""
    tree = flux()
    linears = {n: m for n, m in tree.named_modules() if isinstance(m, nn.Linear)}
    change = {
        n: 0.1 / m.in_features**0.5 * draw(*m.weight.shape, seed=i)
        for i, (n, m) in enumerate(linears.items())
    }
    seen: list[str] = []

    def eraser(name: str, x: Tensor, y: Tensor) -> Tensor:
        seen.append(name)
        return y + x @ change[name].T

    plain, adapted = run(tree), run(tree, eraser=eraser)
    for name, linear in linears.items():
        linear.weight.add_(change[name])
    assert sorted(seen) == sorted(linears)
    assert difference(adapted, plain) > 0.1
    assert difference(adapted, run(tree)) < 1e-12
