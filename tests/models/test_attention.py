"""Attention maps along a rollout against single forward passes, and their order in the picture."""

from __future__ import annotations

import pytest
import torch
from tiny import make_model
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.models.attention import WordMaps, word_maps
from erase_core.models.base import Conditioning, Model, Probe
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import flux_forward, velocity
from erase_core.models.flux1.tree import Flux
from erase_core.models.sampling import sigmas

CONFIG = FluxConfig(
    vec_in_dim=8,
    context_in_dim=16,
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=1,
)
LEVELS = sigmas(3, 1.15)
START = FAMILY.latents.noise([0], 32, 80)  # 4 x 10 latents, 2 x 5 patches
TOKENS = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 1, 0]])


def make_tree() -> Flux:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Flux(CONFIG)


def of(tree: Flux) -> Model:
    return make_model(tree, config=CONFIG)


def make_cond() -> Conditioning:
    generator = torch.Generator().manual_seed(1)
    return Conditioning(
        torch.randn(1, 5, 16, generator=generator), torch.randn(1, 8, generator=generator)
    )


def by_hand(tree: Flux, blocks: tuple[int, ...], heads: list[int], steps: list[int]) -> Tensor:
    """The same rollout written out, every step probed."""
    x, maps = START, []
    with torch.no_grad():
        for step in range(3):
            sigma = LEVELS[step].expand(1)
            out = flux_forward(tree, x, sigma, make_cond(), 3.5, probe=Probe(blocks, TOKENS[None]))
            assert out.attention is not None and out.velocity is not None
            if step in steps:
                maps.append(out.attention[0, :, :, heads])
            x = x + (LEVELS[step + 1] - LEVELS[step]) * out.velocity
    return torch.stack(maps).mean(dim=(0, 1, 3)).reshape(2, 2, 5)


def test_maps_are_means_over_all_blocks_heads_and_steps() -> None:
    tree = make_tree()
    maps = word_maps(of(tree), START, LEVELS, make_cond(), TOKENS, 3.5)
    torch.testing.assert_close(maps.raw, by_hand(tree, (0, 1), [0, 1], [0, 1, 2]))
    assert maps.raw.shape == (2, 2, 5)
    assert maps.raw.min() > 0 and maps.raw.sum(0).max() < 1


def test_blocks_heads_and_steps_can_be_chosen() -> None:
    tree = make_tree()
    maps = word_maps(
        of(tree), START, LEVELS, make_cond(), TOKENS, 3.5, blocks=[1], heads=[1], steps=[0, 2]
    )
    torch.testing.assert_close(maps.raw, by_hand(tree, (1,), [1], [0, 2]))


def test_the_latents_are_those_of_a_plain_rollout() -> None:
    tree = make_tree()
    maps = word_maps(of(tree), START, LEVELS, make_cond(), TOKENS, 3.5, steps=[1])
    x = START
    with torch.no_grad():
        for step in range(3):
            v = velocity(tree, x, LEVELS[step].expand(1), make_cond(), 3.5)
            x = x + (LEVELS[step + 1] - LEVELS[step]) * v
    torch.testing.assert_close(maps.latents, x)


def test_every_step_is_told_and_may_stop_the_rollout() -> None:
    told: list[int] = []
    word_maps(of(make_tree()), START, LEVELS, make_cond(), TOKENS, 3.5, on_step=told.append)
    assert told == [1, 2, 3]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        word_maps(of(make_tree()), START, LEVELS, make_cond(), TOKENS, 3.5, on_step=stop)


def test_an_adapter_moves_the_maps() -> None:
    tree = make_tree()

    def louder(name: str, x: Tensor, y: Tensor) -> Tensor:
        return y * 3 if name.endswith("txt_attn.qkv") else y

    plain = word_maps(of(tree), START, LEVELS, make_cond(), TOKENS, 3.5)
    moved = word_maps(of(tree), START, LEVELS, make_cond(), TOKENS, 3.5, eraser=louder)
    assert not torch.allclose(plain.latents, moved.latents, atol=1e-4)


def test_scaling_by_own_and_by_other_maxima() -> None:
    raw = torch.tensor([[[0.1, 0.2]], [[0.0, 0.0]]])
    maps = WordMaps(raw[None, None], START)
    torch.testing.assert_close(maps.scaled(), torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]]]))
    other = maps.scaled(torch.tensor([0.4, 1.0]))
    torch.testing.assert_close(other, torch.tensor([[[0.25, 0.5]], [[0.0, 0.0]]]))
    assert maps.scaled(torch.tensor([0.1, 1.0])).max() == 1.0


def test_odd_latents_are_rounded_up_to_whole_patches() -> None:
    start = torch.randn(1, 16, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = word_maps(of(make_tree()), start, LEVELS, make_cond(), TOKENS, 3.5)
    assert maps.raw.shape == (2, 3, 4)
    assert maps.latents.shape == start.shape


@pytest.mark.parametrize("options", [{"blocks": [2]}, {"heads": [-1]}, {"steps": [3]}])
def test_what_is_not_there_is_refused(options: dict[str, list[int]]) -> None:
    with pytest.raises(EraseError, match="Choose each"):
        word_maps(of(make_tree()), START, LEVELS, make_cond(), TOKENS, 3.5, **options)
    with pytest.raises(EraseError, match="no word"):
        word_maps(of(make_tree()), START, LEVELS, make_cond(), TOKENS[:0], 3.5)
