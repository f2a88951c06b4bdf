"""The LoRA against merged weights, diffusers' own loader and the names of the authors' release."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from erase_core.erasers.lora import EraserLora, change_norms
from erase_core.errors import EraseError
from erase_core.models.base import Conditioning, Slot
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import patchify, unpatchify, velocity
from erase_core.models.flux1.names import NAMING, ROLES
from erase_core.models.flux1.tree import Flux
from erase_core.tensors import read_tensors, save_tensors

CONFIG = FluxConfig(
    vec_in_dim=24,
    context_in_dim=32,
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=2,
)
LINEARS = FAMILY.linears(CONFIG)
QK = ("add_q_proj", "add_k_proj")


def make_tree(dtype: torch.dtype = torch.float32) -> Flux:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Flux(CONFIG).requires_grad_(False).to(dtype)


def slots_of(targets: tuple[str, ...], config: FluxConfig = CONFIG) -> dict[str, Slot]:
    return FAMILY.slots(config, targets)


def make_lora(targets: tuple[str, ...] = QK, alpha: float | None = None) -> EraserLora:
    """A LoRA that changes something: B drawn too."""
    lora = EraserLora.create(slots_of(targets), rank=4, alpha=alpha, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {k: torch.randn(v.shape, generator=generator) * 0.2 for k, v in lora.state().items()}
    lora.load_state(state)
    return lora


def make_inputs() -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(3)
    cond = Conditioning(
        torch.randn(2, 7, 32, generator=generator), torch.randn(2, 24, generator=generator)
    )
    return torch.randn(2, 16, 4, 6, generator=generator), torch.tensor([0.8, 0.3]), cond


def run(tree: Flux, lora: EraserLora | None = None) -> Tensor:
    latents, sigma, cond = make_inputs()
    with torch.no_grad():
        return velocity(tree, latents, sigma, cond, 3.5, eraser=lora)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_full_size_names_and_shapes_are_those_of_the_release() -> None:
    tensors = EraserLora.create(slots_of(QK, FluxConfig()), rank=8).tensors()
    wanted = {}
    for block in range(19):
        for part in QK:
            name = f"transformer.transformer_blocks.{block}.attn.{part}"
            wanted[f"{name}.lora_A.weight"] = (8, 3072)
            wanted[f"{name}.lora_B.weight"] = (3072, 8)
    assert len(wanted) == 76
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == wanted
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_a_fresh_lora_changes_nothing() -> None:
    tree = make_tree()
    fresh = EraserLora.create(slots_of(tuple(ROLES)), rank=4)
    assert torch.equal(run(tree, fresh), run(tree))
    assert all(value.any() for key, value in fresh.state().items() if "lora_A" in key)


def test_creation_is_seeded_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (EraserLora.create(slots_of(QK), seed=seed).state() for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize("targets", [QK, (*QK, "add_v_proj"), tuple(ROLES)])
def test_base_with_lora_equals_merged_base(targets: tuple[str, ...]) -> None:
    tree, lora = make_tree(), make_lora(targets, alpha=6.0)
    merged = make_tree()
    merged.load_state_dict(lora.merged(tree.state_dict()))
    base, changed = run(tree), run(tree, lora)
    assert relative(changed, base) > 0.01
    assert relative(changed, run(merged)) < 1e-4


def test_merging_leaves_the_given_weights_alone() -> None:
    tree = make_tree()
    before = {key: value.clone() for key, value in tree.state_dict().items()}
    merged = make_lora().merged(tree.state_dict())
    assert all(torch.equal(before[key], value) for key, value in tree.state_dict().items())
    changed = {key for key in merged if not torch.equal(merged[key], before[key])}
    assert changed == {f"double_blocks.{n}.txt_attn.qkv.weight" for n in range(2)}
    qkv = "double_blocks.0.txt_attn.qkv.weight"
    assert torch.equal(merged[qkv][512:], before[qkv][512:])


def make_pipeline(tree: Flux) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=2,
        num_attention_heads=2,
        attention_head_dim=128,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
    )
    transformer.load_state_dict(NAMING.to_diffusers(tree.state_dict(), CONFIG))
    parts = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return FluxPipeline(transformer=transformer, **dict.fromkeys(parts))


def run_diffusers(transformer: FluxTransformer2DModel) -> Tensor:
    latents, sigma, cond = make_inputs()
    tokens, rows, columns = patchify(latents)
    cells = torch.arange(rows * columns)
    ids = torch.stack([torch.zeros_like(cells), cells // columns, cells % columns], dim=-1)
    with torch.no_grad():
        (out,) = transformer(
            hidden_states=tokens,
            encoder_hidden_states=cond.context,
            pooled_projections=cond.pooled,
            timestep=sigma,
            img_ids=ids.float(),
            txt_ids=torch.zeros(cond.context.shape[1], 3),
            guidance=torch.full((2,), 3.5),
            return_dict=False,
        )
    return unpatchify(out, rows, columns)


@pytest.mark.parametrize("targets", [QK, tuple(ROLES)])
def test_diffusers_takes_the_file_and_moves_by_the_same_amount(
    targets: tuple[str, ...], tmp_path: Path
) -> None:
    tree, lora = make_tree(), make_lora(targets, alpha=6.0)
    lora.save(tmp_path / "eraser.safetensors", {"erase.note": "a test"})
    pipeline = make_pipeline(tree)
    base = run_diffusers(pipeline.transformer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.load_lora_weights(tmp_path, weight_name="eraser.safetensors")
    moved = run_diffusers(pipeline.transformer) - base
    assert relative(run(tree, lora) - run(tree), moved) < 1e-3


def test_the_scale_is_baked_into_the_file(tmp_path: Path) -> None:
    lora = make_lora(alpha=6.0)
    lora.save(tmp_path / "a.safetensors", {"erase.seed": "1"})
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"erase.seed": "1"}
    assert not any(key.endswith(".alpha") for key in tensors)
    loaded = EraserLora.load(tmp_path / "a.safetensors", LINEARS)
    tree = make_tree()
    torch.testing.assert_close(run(tree, loaded), run(tree, lora))


def test_alpha_tensors_are_honoured(tmp_path: Path) -> None:
    lora, tensors = make_lora(), {}
    for key, value in lora.tensors().items():
        tensors[key] = value
        tensors[key.split(".lora_")[0] + ".alpha"] = torch.tensor([2.0])
    save_tensors(tmp_path / "a.safetensors", tensors)
    loaded, tree = EraserLora.load(tmp_path / "a.safetensors", LINEARS), make_tree()
    torch.testing.assert_close(run(tree, loaded), run(tree, lora.scaled(2.0 / 4)))


def test_strength_multiplies_the_change() -> None:
    lora, x = make_lora(alpha=6.0), torch.randn(2, 5, 256)
    name, y = "double_blocks.1.txt_attn.qkv", torch.randn(2, 5, 768)
    whole, half, none = (lora.scaled(s)(name, x, y) - y for s in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, whole / 2, atol=1e-5, rtol=1e-4)
    assert not none.any()
    weights = lora.state()
    for rows, part in ((slice(0, 256), "add_q_proj"), (slice(256, 512), "add_k_proj")):
        down = weights[f"transformer_blocks.1.attn.{part}.lora_A.weight"]
        up = weights[f"transformer_blocks.1.attn.{part}.lora_B.weight"]
        wanted = 1.5 * x @ down.T @ up.T
        torch.testing.assert_close(whole[..., rows], wanted, atol=1e-4, rtol=1e-4)
    assert not whole[..., 512:].any()


def test_untargeted_modules_are_left_alone() -> None:
    y = torch.randn(2, 5, 768)
    assert make_lora()("double_blocks.0.img_attn.qkv", torch.randn(2, 5, 256), y) is y


def test_over_a_bfloat16_base_only_the_sum_is_rounded() -> None:
    lora, x, y = make_lora(), torch.randn(2, 5, 256).bfloat16(), torch.randn(2, 5, 768).bfloat16()
    name = "double_blocks.0.txt_attn.qkv"
    low, exact = lora(name, x, y), lora(name, x.float(), y.float())
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, exact.bfloat16())
    assert run(make_tree(torch.bfloat16), lora).isfinite().all()


def test_ranks_may_differ_from_adapter_to_adapter() -> None:
    tensors = make_lora().tensors()
    name = "transformer.transformer_blocks.0.attn.add_q_proj"
    for end, dim in ((".lora_A.weight", 0), (".lora_B.weight", 1)):
        tensors[name + end] = tensors[name + end].narrow(dim, 0, 2).clone()
    again = EraserLora.from_tensors(tensors, LINEARS).tensors()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    tensors = make_lora().tensors()
    other = {key.replace("transformer.", "diffusion_model."): t for key, t in tensors.items()}
    strange = tensors | {"lora_unet_x.lora_down.weight": torch.zeros(1)}
    half = {key: t for key, t in tensors.items() if not key.endswith("lora_B.weight")}
    for bad in (other, strange, half, {}):
        with pytest.raises(EraseError, match="choose|lacks"):
            EraserLora.from_tensors(bad, LINEARS)
    with pytest.raises(EraseError, match="does not fit"):
        EraserLora.from_tensors(tensors, FAMILY.linears(FluxConfig()))
    with pytest.raises(EraseError, match="no file"):
        EraserLora.load(tmp_path / "absent.safetensors", LINEARS)
    with pytest.raises(EraseError, match="target"):
        slots_of(("to_everything",))


def test_change_norms_equal_those_of_the_products() -> None:
    lora = make_lora(alpha=6.0)
    state, norms = lora.state(), change_norms(lora.tensors())
    assert len(norms) == 4
    for name, norm in norms.items():
        product = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"] * 1.5
        assert norm == pytest.approx(product.norm().item(), rel=1e-5)
