"""BFL's and diffusers' names for the same weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from erase_core.errors import EraseError
from erase_core.models.base import Slot
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.names import ALIASES, NAMING, ROLES, file_keys, tree_keys
from erase_core.models.flux1.tree import Flux

DEV = FluxConfig(
    vec_in_dim=24, context_in_dim=40, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2
)
SCHNELL = replace(DEV, guidance_embed=False)
CONFIGS = pytest.mark.parametrize("config", [DEV, SCHNELL], ids=["dev", "schnell"])


def diffusers_model(config: FluxConfig) -> FluxTransformer2DModel:
    """Every parameter different from every other."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        num_layers=config.depth,
        num_single_layers=config.depth_single_blocks,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.context_in_dim,
        pooled_projection_dim=config.vec_in_dim,
        guidance_embeds=config.guidance_embed,
    )
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})
    return model


@CONFIGS
def test_names_go_there_and_back(config: FluxConfig) -> None:
    state = diffusers_model(config).state_dict()
    converted = NAMING.to_bfl(state)
    assert tree_keys(converted).keys() == Flux(config).state_dict().keys()
    assert file_keys(tree_keys(converted)).keys() == converted.keys()
    for norms in (converted, tree_keys(converted)):
        back = NAMING.to_diffusers(norms, config)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


def test_keys_beyond_flux_stay_visible() -> None:
    state = diffusers_model(DEV).state_dict()
    state["transformer_blocks.0.extra.weight"] = torch.ones(1)
    del state["transformer_blocks.0.attn.to_k.bias"]
    converted = NAMING.to_bfl(state)
    assert "double_blocks.0.img_attn.qkv.bias" not in converted
    assert "transformer_blocks.0.extra.weight" in converted
    with pytest.raises(EraseError, match=r"img_attn\.qkv\.bias"):
        NAMING.to_diffusers(converted, DEV)


def test_slots_hold_the_rows_of_diffusers_linears() -> None:
    model = diffusers_model(DEV)
    tree = Flux(DEV)
    tree.load_state_dict(tree_keys(NAMING.to_bfl(model.state_dict())))
    slots = NAMING.slots(DEV)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert slots.keys() == linears.keys() - {"norm_out.linear"}
    for name, slot in slots.items():
        linear, module = linears[name], tree.get_submodule(slot.module)
        assert torch.equal(module.weight[slot.rows], linear.weight), name
        assert torch.equal(module.bias[slot.rows], linear.bias), name
        assert (slot.in_features, slot.out_features) == (linear.in_features, linear.out_features)


def slots_of(*roles: str) -> dict[str, Slot]:
    """At full size."""
    return FAMILY.slots(FluxConfig(), roles)


def test_roles_at_full_size() -> None:
    slots = slots_of("text.q", "text.k")
    assert list(slots) == [
        f"transformer_blocks.{i}.attn.add_{p}_proj" for i in range(19) for p in "qk"
    ]
    assert slots["transformer_blocks.18.attn.add_k_proj"] == Slot(
        "double_blocks.18.txt_attn.qkv",
        slice(3072, 6144),
        3072,
        3072,
    )
    counts = {"text.v": 19, "text.out": 19, "single.attention": 3 * 38, "pooled_in": 2}
    counts |= {"image.attention": 19 * 4, "text_in": 1, "text.mlp_out": 19}
    assert {name: len(slots_of(name)) for name in counts} == counts
    assert len(slots_of(*ROLES)) == 19 * 9 + 3 * 38 + 2 + 1
    value = slots_of("single.attention")["single_transformer_blocks.37.attn.to_v"]
    assert value == Slot("single_blocks.37.linear1", slice(6144, 9216), 3072, 3072)
    first = slots_of("pooled_in")["time_text_embed.text_embedder.linear_1"]
    assert first == Slot("vector_in.in_layer", slice(0, 3072), 768, 3072)
    assert slots_of("text_in")["context_embedder"] == Slot("txt_in", slice(0, 3072), 4096, 3072)


def test_targets_of_older_files_are_the_same_roles() -> None:
    old = "add_q_proj add_k_proj add_v_proj to_add_out image_attention single_blocks vector_in"
    assert set(ALIASES) == set(old.split())
    assert set(ALIASES.values()) == set(ROLES) - {"text_in", "text.mlp_out"}
    for alias, role in ALIASES.items():
        assert slots_of(alias) == slots_of(role)
    assert len(slots_of(*ALIASES)) == 19 * 8 + 3 * 38 + 2
    assert slots_of("add_k_proj", "text.q", "text.k") == slots_of("text.q", "text.k")


@pytest.mark.parametrize("targets", [["text.q", "attn2"], []])
def test_unknown_targets_are_refused(targets: list[str]) -> None:
    with pytest.raises(EraseError, match="choose from text.q, text.k, .*text_in, pooled_in"):
        FAMILY.slots(SimpleNamespace(), targets)
