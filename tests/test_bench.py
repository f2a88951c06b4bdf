"""The benchmark: its methods, its cells, its tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import LENGTH, WordText, make_tree

from erase_core.bench.method import find_method, methods
from erase_core.edit import WeightEdit
from erase_core.errors import EraseError
from erase_core.flux.forward import velocity
from erase_core.miniflux import FOLDER


def test_every_method_says_what_it_is() -> None:
    found = methods()
    assert {"untouched", "ours"} <= found.keys()
    for name, method in found.items():
        assert method.name == name and method.label
    with pytest.raises(EraseError, match="choose from"):
        find_method("magic")


def test_a_weight_edit_equals_the_edited_weights(tmp_path: Path) -> None:
    tree, edited = make_tree(), make_tree()
    edit = WeightEdit.zeros(tree, ["txt_in", "double_blocks.1.txt_attn.qkv"])
    generator = torch.Generator().manual_seed(3)
    for parameter in edit.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    edit.save(tmp_path / "edit.safetensors")
    for name, change in WeightEdit.load(tmp_path / "edit.safetensors").changes.items():
        edited.get_submodule(name).weight.data += change.data
    cond = WordText().encode([" ".join(["tiger"] * LENGTH)])
    x = torch.randn(1, 16, 4, 6, generator=generator)
    told = velocity(tree, x, torch.tensor([0.5]), cond, lora=edit)
    assert not torch.allclose(told, velocity(tree, x, torch.tensor([0.5]), cond), atol=1e-3)
    torch.testing.assert_close(told, velocity(edited, x, torch.tensor([0.5]), cond))
    with pytest.raises(EraseError, match="no weight edit"):
        WeightEdit.load(FOLDER / "vae.safetensors")
