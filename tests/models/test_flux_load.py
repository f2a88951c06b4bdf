"""Every layout of a Flux transformer loads to the same tree; everything else is refused plainly."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.models.base import Conditioning
from erase_core.models.files import family_of
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.forward import velocity
from erase_core.models.flux1.names import NAMING, file_keys
from erase_core.models.flux1.tree import Flux
from erase_core.models.load import load

CONFIG = FluxConfig(
    vec_in_dim=8, context_in_dim=16, hidden_size=128, num_heads=1, depth=2, depth_single_blocks=1
)
WEIGHTS = "diffusion_pytorch_model.safetensors"
State = dict[str, Tensor]


def load_flux(path: Path, dtype: torch.dtype | None = None) -> tuple[Flux, FluxConfig]:
    return load(family_of(path), path, dtype=dtype)


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights under our tree's keys."""
    torch.manual_seed(0)
    tree = Flux(CONFIG)
    return {
        k: torch.randn_like(v) / max(v.shape[-1], 20) ** 0.5 for k, v in tree.state_dict().items()
    }


def bfl(folder: Path, state: State) -> Path:
    save_file(file_keys(state), folder / "flux.safetensors")
    return folder / "flux.safetensors"


def bfl_weight_norms(folder: Path, state: State) -> Path:
    save_file(state, folder / "flux.safetensors")
    return folder / "flux.safetensors"


def full_checkpoint(folder: Path, state: State) -> Path:
    whole = {f"model.diffusion_model.{k}": v for k, v in file_keys(state).items()}
    others = ("text_encoders.clip_l.x", "vae.encoder.conv_in.weight", "shared.weight")
    save_file(whole | {name: torch.ones(2) for name in others}, folder / "all.safetensors")
    return folder / "all.safetensors"


def diffusers_file(folder: Path, state: State) -> Path:
    split = NAMING.to_diffusers(state, CONFIG)
    save_file({k: v.contiguous() for k, v in split.items()}, folder / WEIGHTS)
    return folder / WEIGHTS


def diffusers_folder(folder: Path, state: State) -> Path:
    return diffusers_file(folder, state).parent


def pipeline_folder(folder: Path, state: State) -> Path:
    """Two shards with an index, in the transformer folder of a pipeline."""
    inner = folder / "transformer"
    inner.mkdir()
    split = {k: v.contiguous() for k, v in NAMING.to_diffusers(state, CONFIG).items()}
    shards = {"a.safetensors": list(split)[::2], "b.safetensors": list(split)[1::2]}
    for name, keys in shards.items():
        save_file({k: split[k] for k in keys}, inner / name)
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    (inner / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    return folder


@pytest.mark.parametrize(
    "write",
    [bfl, bfl_weight_norms, full_checkpoint, diffusers_file, diffusers_folder, pipeline_folder],
)
def test_every_layout_loads_the_same(
    tmp_path: Path, state: State, write: Callable[[Path, State], Path]
) -> None:
    tree, config = load_flux(write(tmp_path, state))
    assert config == CONFIG
    loaded = tree.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert not any(p.requires_grad for p in tree.parameters())


@pytest.mark.parametrize("write", [bfl, diffusers_file])
def test_schnell_has_no_guidance(
    tmp_path: Path, state: State, write: Callable[[Path, State], Path]
) -> None:
    state = {k: v for k, v in state.items() if not k.startswith("guidance_in")}
    global_config = FluxConfig(**{**CONFIG.__dict__, "guidance_embed": False})
    if write is diffusers_file:
        split = NAMING.to_diffusers(state, global_config)
        save_file({k: v.contiguous() for k, v in split.items()}, tmp_path / WEIGHTS)
        path = tmp_path / WEIGHTS
    else:
        path = write(tmp_path, state)
    assert load_flux(path)[1] == global_config


def test_dtype_casts_everything(tmp_path: Path, state: State) -> None:
    tree, _ = load_flux(bfl(tmp_path, state), dtype=torch.bfloat16)
    assert {p.dtype for p in tree.parameters()} == {torch.bfloat16}
    assert torch.equal(tree.img_in.weight, state["img_in.weight"].bfloat16())


def test_float16_is_too_narrow_to_compute_in(tmp_path: Path, state: State) -> None:
    halves = {name: tensor.half() for name, tensor in state.items()}
    tree, _ = load_flux(bfl(tmp_path, halves))
    assert {p.dtype for p in tree.parameters()} == {torch.bfloat16}


def run(tree: Flux) -> Tensor:
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 16, 4, 6, generator=g)
    cond = Conditioning(torch.randn(2, 5, 16, generator=g), torch.randn(2, 8, generator=g))
    return velocity(tree, latents, torch.tensor([0.25, 0.75]), cond, 3.5)


@pytest.mark.parametrize("write", [bfl, diffusers_file])
def test_plain_fp8_stays_small_and_computes_as_if_widened(
    tmp_path: Path, state: State, write: Callable[[Path, State], Path]
) -> None:
    path = write(tmp_path, {k: v.to(torch.float8_e4m3fn) for k, v in state.items()})
    kept, widened = load_flux(path)[0], load_flux(path, dtype=torch.bfloat16)[0]
    assert {p.dtype for p in kept.parameters() if p.ndim == 2} == {torch.float8_e4m3fn}
    assert {p.dtype for p in kept.parameters() if p.ndim == 1} == {torch.bfloat16}
    assert {p.dtype for p in widened.parameters()} == {torch.bfloat16}
    assert run(kept).isfinite().all() and run(kept).std() > 0.01
    assert torch.equal(run(kept), run(widened))


@pytest.mark.parametrize(
    ("weight_scale", "input_scale"),
    [("scale_weight", "scale_input"), ("weight_scale", "input_scale")],
)
def test_scaled_fp8_stays_small_and_computes_as_if_multiplied_out(
    tmp_path: Path, state: State, weight_scale: str, input_scale: str
) -> None:
    stored: State = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for key, value in file_keys(state).items():
        stored[key] = value.bfloat16()
        if "blocks" in key and value.ndim == 2:
            module = key.removesuffix(".weight")
            scale = value.abs().max() / 448
            stored[key] = (value / scale).to(torch.float8_e4m3fn)
            stored[f"{module}.{weight_scale}"] = scale
            stored[f"{module}.{input_scale}"] = torch.tensor(1.0)
            stored[f"{module}.comfy_quant"] = torch.zeros(4, dtype=torch.uint8)
    save_file(stored, tmp_path / "scaled.safetensors")
    kept, _ = load_flux(tmp_path / "scaled.safetensors")
    fp8 = {name for name, p in kept.named_parameters() if p.dtype == torch.float8_e4m3fn}
    assert fp8 == {key for key in state if "blocks" in key and state[key].ndim == 2}
    tree, _ = load_flux(tmp_path / "scaled.safetensors", dtype=torch.bfloat16)
    assert {p.dtype for p in tree.parameters()} == {torch.bfloat16}
    for key, value in tree.state_dict().items():
        assert (value - state[key]).norm() < 0.05 * state[key].norm(), key
    assert torch.equal(run(kept), run(tree))


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_loading_allocates_no_copy(tmp_path: Path) -> None:
    config = FluxConfig(hidden_size=768, num_heads=6, depth=1, depth_single_blocks=1)
    big = Flux(config).bfloat16().state_dict()
    size = sum(v.nbytes for v in big.values())
    path = bfl(tmp_path, big)
    before = anonymous_bytes()
    tree, _ = load_flux(path)
    total = sum(float(p.sum()) for p in tree.parameters())
    assert total == total
    assert anonymous_bytes() - before < 0.2 * size


def without(state: State, *keys: str) -> State:
    return {k: v for k, v in state.items() if k not in keys}


KEYS = {
    "a Stable Diffusion XL model": "model.diffusion_model.label_emb.0.0.weight",
    "a Stable Diffusion 1 or 2 model": "model.diffusion_model.input_blocks.0.0.weight",
    "a Wan model": "head.modulation",
    "a LoRA": "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight",
    "a Chroma Radiance model": "nerf_blocks.0.norm.scale",
    "a LongCat-Image model": "time_embed.timestep_embedder.linear_1.weight",
    "a text encoder": "text_model.embeddings.position_embedding.weight",
    r"an autoencoder \(VAE\)": "decoder.conv_in.weight",
    "quantised to integers": "single_transformer_blocks.0.mlp_fc1.qweight",
    "no transformer that is known": "something.else",
}


@pytest.mark.parametrize("sentence", KEYS)
def test_other_models_are_named(tmp_path: Path, sentence: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({KEYS[sentence]: torch.ones(4, 4)}, path)
    with pytest.raises(EraseError, match=rf"model\.safetensors.*{sentence}.*choose"):
        load_flux(path)


@pytest.mark.parametrize(
    ("channels", "name"), [(384, "Fill"), (128, "Depth or Canny"), (196, "196")]
)
def test_models_with_picture_inputs_are_refused(
    tmp_path: Path, state: State, channels: int, name: str
) -> None:
    path = bfl(tmp_path, state | {"img_in.weight": torch.ones(128, channels)})
    with pytest.raises(EraseError, match=f"is .*{name}.*more than a prompt"):
        load_flux(path)


def test_kontext_is_refused_by_name_or_metadata(tmp_path: Path, state: State) -> None:
    named = tmp_path / "flux1-dev-Kontext_fp8.safetensors"
    save_file(file_keys(state), named)
    told = tmp_path / "renamed.safetensors"
    save_file(file_keys(state), told, metadata={"modelspec.title": "FLUX.1 Kontext dev"})
    folder = pipeline_folder(tmp_path, state)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    for path in (named, told, folder, folder / "transformer"):
        with pytest.raises(EraseError, match="Kontext"):
            load_flux(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"GGUF\x03\x00\x00\x00rest", "GGUF"),
        (b"PK\x03\x04archive/data.pkl", "pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (b"", "not a whole safetensors file"),
        (b"<html>not found</html>", "not a whole safetensors file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(EraseError, match=sentence):
        load_flux(path)


def test_a_truncated_file_is_refused(tmp_path: Path, state: State) -> None:
    path = bfl(tmp_path, state)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EraseError, match="not a whole safetensors file"):
        load_flux(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: without(s, "single_blocks.0.linear1.bias"), r"lacks 1 .*linear1\.bias"),
        (lambda s: without(s, "img_in.weight"), "not a Flux transformer"),
        (lambda s: without(s, "guidance_in.out_layer.bias"), "lacks 1 .*guidance_in"),
        (lambda s: s | {"extra.weight": torch.ones(2)}, r"beyond.*1 .*extra\.weight"),
        (lambda s: s | {"img_in.bias": torch.ones(64)}, r"wrong shape.*img_in\.bias"),
        (lambda s: s | {"txt_in.weight": torch.ones(128, 16).int()}, "quantised"),
    ],
)
def test_damaged_states_are_named(
    tmp_path: Path, state: State, change: Callable[[State], State], sentence: str
) -> None:
    with pytest.raises(EraseError, match=sentence):
        load_flux(bfl(tmp_path, change(state)))


def test_odd_widths_are_refused(tmp_path: Path, state: State) -> None:
    config = FluxConfig(**{**CONFIG.__dict__, "hidden_size": 192, "num_heads": 3})
    with pytest.raises(EraseError, match="192 wide"):
        load_flux(bfl(tmp_path, Flux(config).state_dict()))


def test_missing_files_and_shards_are_named(tmp_path: Path, state: State) -> None:
    with pytest.raises(EraseError, match="nowhere"):
        load_flux(tmp_path / "nowhere.safetensors")
    with pytest.raises(EraseError, match="There is no diffusion_pytorch_model"):
        load_flux(tmp_path)
    folder = pipeline_folder(tmp_path, state)
    (folder / "transformer" / "b.safetensors").unlink()
    with pytest.raises(EraseError, match=r"b\.safetensors"):
        load_flux(folder)
