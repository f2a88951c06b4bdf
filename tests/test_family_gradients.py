"""Gradients through diffusers' own transformers, which the headless path trains through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from finite import Rows, outcome, randomise, slopes
from torch import Tensor

diffusers = pytest.importorskip("diffusers")

HEADS = {"num_attention_heads": 2, "attention_head_dim": 128}
TEXT = {"joint_attention_dim": 32}


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


SIGMA = torch.tensor([0.8, 0.4])
CONTEXT = normal(2, 5, 32)
POOLED = normal(2, 16)
Case = tuple[Callable[[], Tensor], Mapping[str, Rows]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ids(tokens: int, axes: int = 3) -> Tensor:
    """Positions along the second axis."""
    return torch.eye(axes)[1] * torch.arange(tokens)[:, None]


def joint(attention: Any, x: Tensor) -> dict[str, Rows]:
    """The input, and q and k of a text stream that has projections of its own."""
    return {
        "input": Rows(x),
        "text q": Rows(attention.add_q_proj.weight),
        "text k": Rows(attention.add_k_proj.weight),
    }


def flux1() -> Case:
    model = randomise(
        diffusers.FluxTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, pooled_projection_dim=16,
            guidance_embeds=True, **HEADS, **TEXT,
        )
    )  # fmt: skip
    x, guidance = normal(2, 6, 64), torch.full((2,), 3.5)
    asked = joint(model.transformer_blocks[0].attn, x)
    args = CONTEXT, POOLED, SIGMA, ids(6), ids(5), guidance
    return lambda: model(x, *args, return_dict=False)[0], asked


def flux2() -> Case:
    model = randomise(
        diffusers.Flux2Transformer2DModel(
            num_layers=1, num_single_layers=1, guidance_embeds=False, **HEADS, **TEXT
        )
    )
    x = normal(2, 6, 128)
    asked = joint(model.transformer_blocks[0].attn, x)
    args = CONTEXT, SIGMA, ids(6, 4), ids(5, 4)
    return lambda: model(x, *args, return_dict=False)[0], asked


def chroma() -> Case:
    model = randomise(
        diffusers.ChromaTransformer2DModel(
            num_layers=1, num_single_layers=1, approximator_hidden_dim=32, approximator_layers=1,
            **HEADS, **TEXT,
        )
    )  # fmt: skip
    x = normal(2, 6, 64)
    asked = joint(model.transformer_blocks[0].attn, x)
    args = CONTEXT, SIGMA, ids(6), ids(5)
    return lambda: model(x, *args, return_dict=False)[0], asked


def sd3() -> Case:
    model = randomise(
        diffusers.SD3Transformer2DModel(
            sample_size=8, num_layers=2, attention_head_dim=32, num_attention_heads=2,
            caption_projection_dim=64, pooled_projection_dim=16, pos_embed_max_size=8,
            dual_attention_layers=(0,), qk_norm="rms_norm", **TEXT,
        )
    )  # fmt: skip
    x = normal(2, 16, 4, 6)
    asked = joint(model.transformer_blocks[0].attn, x)
    args = CONTEXT, POOLED, SIGMA * 1000
    return lambda: model(x, *args, return_dict=False)[0], asked


def qwen_image() -> Case:
    model = randomise(diffusers.QwenImageTransformer2DModel(num_layers=2, **HEADS, **TEXT))
    x, mask = normal(2, 6, 64), torch.ones(2, 5)
    asked = joint(model.transformer_blocks[0].attn, x)
    shapes = [[(1, 2, 3)]] * 2
    return lambda: model(x, CONTEXT, mask, SIGMA, shapes, return_dict=False)[0], asked


def z_image() -> Case:
    model = randomise(
        diffusers.ZImageTransformer2DModel(
            dim=256, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32
        )
    )
    x = normal(2, 16, 1, 4, 6)
    text, shared = model.context_refiner[0].attention, model.layers[0].attention
    asked = {
        "input": Rows(x),
        "cap_embedder": Rows(model.cap_embedder[1].weight),
        "text q": Rows(text.to_q.weight),
        "text k": Rows(text.to_k.weight),
        "shared q": Rows(shared.to_q.weight),
        "shared k": Rows(shared.to_k.weight),
    }
    rows = list(CONTEXT)
    return lambda: torch.stack(model(list(x), SIGMA, rows, return_dict=False)[0]), asked


@pytest.mark.parametrize("family", [flux1, flux2, chroma, sd3, qwen_image, z_image])
def test_diffusers_forward_differentiates_rightly(family: Callable[[], Case]) -> None:
    pairs = slopes(*family())
    assert outcome(pairs) == "right", pairs
