"""Combining LoRAs: what the parts change, the whole changes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from erase_core.cli.inspect import by_block
from erase_core.erasers.combine import METHODS, Part, combine, combined_metadata
from erase_core.erasers.lora import EraserLora
from erase_core.errors import EraseError
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig

CONFIG = FluxConfig(vec_in_dim=8, context_in_dim=16, hidden_size=128, num_heads=1, depth=2)


def lora(seed: int, targets: tuple[str, ...] = ("add_q_proj", "add_k_proj"), rank: int = 2) -> Part:
    made = EraserLora.create(FAMILY.slots(CONFIG, targets), rank, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    told = {"erase.concepts": json.dumps({"concepts": [{"name": f"thing {seed}"}]})}
    return Part(made.tensors(), 1.0, told | {"erase.base_sha256": "abc"})


def change(tensors: dict[str, Tensor], module: str) -> Tensor:
    """B A of a module; 0 where there is none."""
    key = f"transformer.{module}.lora_A.weight"
    if key not in tensors:
        return torch.zeros(())
    return tensors[key.replace("lora_A", "lora_B")] @ tensors[key]


def test_cat_is_the_exact_weighted_sum_of_unequal_parts() -> None:
    one = lora(1, ("add_q_proj", "add_k_proj"), rank=2)
    two = lora(2, ("add_q_proj", "add_v_proj"), rank=3)._replace(weight=-0.5)
    both = combine([one, two])
    assert combined_metadata([], "cat", both)["ss_network_dim"] == "5"
    for part in ("add_q_proj", "add_k_proj", "add_v_proj"):
        for block in range(2):
            name = f"transformer_blocks.{block}.attn.{part}"
            wanted = change(one.tensors, name) - 0.5 * change(two.tensors, name)
            assert torch.allclose(change(both, name), wanted, atol=1e-5)
    EraserLora.from_tensors(both, FAMILY.linears(CONFIG))  # and it is a LoRA like any other


@pytest.mark.parametrize("method", METHODS)
def test_one_part_alone_stays_what_it_is(method: str) -> None:
    one = lora(1)
    alone = combine([one], method, density=1.0)
    for key in one.tensors:
        name = key.removeprefix("transformer.").split(".lora_")[0]
        assert torch.allclose(change(alone, name), change(one.tensors, name), atol=1e-3)


def test_dare_repeats_with_its_seed_and_leaves_the_global_one() -> None:
    parts = [lora(1), lora(2)]
    state = torch.get_rng_state()
    a, b, c = (combine(parts, "dare_linear", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(a[key].equal(b[key]) for key in a)
    assert not all(a[key].equal(c[key]) for key in a)


def test_what_cannot_be_combined_is_one_sentence() -> None:
    with pytest.raises(EraseError, match="linear cannot combine .* choose cat"):
        combine([lora(1, rank=2), lora(2, rank=3)], "linear")
    with pytest.raises(EraseError, match="nothing to combine"):
        combine([])
    with pytest.raises(EraseError, match="no part of a LoRA"):
        combine([Part({"lora_unet_x.lora_down.weight": torch.zeros(1)}, 1.0, {})])
    with pytest.raises(EraseError, match="no method average"):
        combine([lora(1)], "average")


def test_the_metadata_names_the_parts() -> None:
    parts = [lora(1), lora(2)._replace(weight=0.5), Part(lora(3).tensors, 1.0, {})]
    metadata = combined_metadata(parts, "cat", combine(parts))
    told = json.loads(metadata["erase.combined"])
    assert [part["concepts"] for part in told["parts"]] == [["thing 1"], ["thing 2"], []]
    assert [part["weight"] for part in told["parts"]] == [1.0, 0.5, 1.0]
    assert metadata["ss_network_dim"] == "6" and metadata["erase.base_sha256"] == ""
    assert "thing 1, thing 2" in metadata["ss_training_comment"]


def test_combined_weight_edits_are_no_lora() -> None:
    """Managers read no rank of them; with a LoRA beside them, the LoRA's."""
    edit = Part({"diffusion_model.txt_in.diff": torch.ones(4, 3)}, 1.0, {})
    edits = combined_metadata([edit, edit], "cat", combine([edit, edit]))
    assert edits["ss_network_module"] == "weights" and "ss_network_dim" not in edits
    mixed = combined_metadata([edit, lora(1)], "cat", combine([edit, lora(1)]))
    assert (mixed["ss_network_module"], mixed["ss_network_dim"]) == ("peft.tuners.lora", "2")


def test_a_weight_edit_is_told_block_by_block() -> None:
    norms = {"double_blocks.1.txt_attn.qkv": 3.0, "double_blocks.1.txt_mlp.0": 4.0, "txt_in": 1.0}
    assert by_block(norms) == {"double_blocks.1": 5.0, "txt_in": 1.0}
