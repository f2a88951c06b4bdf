"""A weight edit as a LoRA: the nearest of its rank, under names that loaders take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CONFIG, make_model, make_tree

from erase_core.erasers.edit import WeightEdit
from erase_core.erasers.load import change_sizes, load
from erase_core.erasers.shrink import as_lora
from erase_core.errors import EraseError
from erase_core.models.flux1 import FAMILY
from erase_core.tensors import read_tensors

LINEARS = FAMILY.linears(CONFIG)
QKV = "double_blocks.0.txt_attn.qkv"


SWAPPED = "final_layer.adaLN_modulation.1"  # has no name in a LoRA file


def make_edit(*more: str) -> WeightEdit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tree = make_tree()
        modules = ("txt_in", QKV, *more)
        shapes = {name: tree.get_parameter(f"{name}.weight").shape for name in modules}
        changes = {name: torch.randn(shape) for name, shape in shapes.items()}
        return WeightEdit(changes, {"txt_in": torch.randn(shapes["txt_in"][0])})


def test_the_error_is_the_tail_of_the_singular_values() -> None:
    edit = make_edit(SWAPPED)
    lora, missed = as_lora(edit, LINEARS, 4)
    names = {f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"} | {"context_embedder"}
    assert missed.keys() == names
    values = torch.linalg.svdvals(edit.changes["txt_in"].detach().double())
    tail = float((values[4:].square().sum() / values.square().sum()).sqrt())
    assert missed["context_embedder"] == pytest.approx(tail, rel=1e-2)
    assert missed["context_embedder"] >= tail - 1e-6  # nothing of this rank is nearer
    keys = lora.tensors().keys()
    assert {k for k in keys if k.startswith("diffusion_model.")} == {
        "diffusion_model.txt_in.diff_b",
        f"diffusion_model.{SWAPPED}.diff",
    }
    assert lora.tensors()["transformer.context_embedder.lora_A.weight"].shape == (4, 16)


def test_at_full_rank_it_does_what_the_edit_does(tmp_path: Path) -> None:
    edit = make_edit()
    lora, missed = as_lora(edit, LINEARS, 128)
    assert max(missed.values()) < 1e-5
    lora.save(tmp_path / "lora.safetensors")
    loaded = load(tmp_path / "lora.safetensors", make_model())
    for name, change in edit.changes.items():
        x, y = torch.randn(2, change.shape[1]), torch.randn(2, change.shape[0])
        for strength in (1.0, -1.0, 2.0):
            found = loaded.scaled(strength)(name, x, y)
            wanted = edit.scaled(strength)(name, x, y)
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    sizes = change_sizes(read_tensors(tmp_path / "lora.safetensors")[0], "it")
    assert sizes["context_embedder"] == pytest.approx(
        float(edit.changes["txt_in"].detach().norm()), rel=1e-4
    )


def test_a_bias_is_added_alone_and_with_its_weight(tmp_path: Path) -> None:
    edit = make_edit()
    edit.save(tmp_path / "edit.safetensors")
    loaded = load(tmp_path / "edit.safetensors", make_model())
    x, y = torch.randn(2, 16), torch.randn(2, 128)
    with torch.no_grad():
        wanted = y + x @ edit.changes["txt_in"].T + edit.biases["txt_in"]
        torch.testing.assert_close(loaded("txt_in", x, y), wanted)
        alone = WeightEdit({}, edit.biases)
        torch.testing.assert_close(alone("txt_in", x, y), y + edit.biases["txt_in"])
        doubled = y + 2 * (wanted - y)
        torch.testing.assert_close(loaded.scaled(2.0)("txt_in", x, y), doubled)
    sizes = change_sizes(read_tensors(tmp_path / "edit.safetensors")[0], "it")
    both = torch.cat([edit.changes["txt_in"].flatten(), edit.biases["txt_in"]])
    assert sizes["txt_in"] == pytest.approx(float(both.detach().norm()))
    WeightEdit({}, {"txt_in": torch.zeros(7)}).save(tmp_path / "wrong.safetensors")
    with pytest.raises(EraseError, match="does not fit this base model"):
        load(tmp_path / "wrong.safetensors", make_model())
