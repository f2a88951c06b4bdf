"""Z-Image's files, text encoder, guidance and LoRA names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from klein import make_tokenizer
from models.kinds import random_lora
from safetensors.torch import save_file
from tiny import ZIMAGE, ZIMAGE_FAMILY, make_zimage
from torch import Tensor
from z_image import DIM, make_pipeline, save_pipeline

from erase_core.errors import EraseError
from erase_core.models.base import Conditioning, Model
from erase_core.models.files import Files, family_of, open_files
from erase_core.models.flux2.text import load_qwen
from erase_core.models.load import load
from erase_core.models.zimage.config import ZImageConfig
from erase_core.models.zimage.names import from_diffusers, skeleton, to_diffusers
from erase_core.models.zimage.presets import TEXT
from erase_core.models.zimage.text import UNUSED, ChatText

PROMPTS = [
    "a photo of a tiger",
    "",
    "a user and an assistant see a tiger in the deep snow, two lions, a car",
]
CPU = torch.device("cpu")


def state_of(model: Model, layout: str) -> dict[str, Tensor]:
    state = model.tree.state_dict()
    named = state if layout == "original" else to_diffusers(state)
    return {name: tensor.clone() for name, tensor in named.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("z") / "Z-Image")


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_files_come_back(layout: str, tmp_path: Path) -> None:
    """In either layout, and with a tensor of Lumina's that nothing reads."""
    model, path = make_zimage(), tmp_path / "z_image_bf16.safetensors"
    save_file(state_of(model, layout) | {"norm_final.weight": torch.ones(128)}, path)
    assert family_of(path) is ZIMAGE_FAMILY
    tree, config = load(ZIMAGE_FAMILY, path)
    assert config == ZIMAGE
    wanted = model.tree.state_dict()
    assert wanted.keys() == tree.state_dict().keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tree.state_dict().items())


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_fp8_files_compute_as_they_say(layout: str, tmp_path: Path) -> None:
    """One of our matrices scaled."""
    model, path = make_zimage(), tmp_path / "fp8.safetensors"
    state = {n: t.bfloat16() for n, t in state_of(model, layout).items()}
    narrow = {
        n: t.to(torch.float8_e4m3fn) if t.ndim == 2 and "layers" in n else t
        for n, t in state.items()
    }
    parts = ["qkv"] if layout == "original" else ["to_q", "to_k", "to_v"]
    scales = {f"layers.0.attention.{part}.scale_weight": torch.tensor(1.0) for part in parts}
    save_file(narrow | scales, path)
    tree, _ = load(ZIMAGE_FAMILY, path)
    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    cond = model.text.encode(PROMPTS[:2])
    with torch.no_grad():
        plain = model.velocity(x, sigma, cond)
        found = replace(model, tree=tree).velocity(x, sigma, cond)
    assert 0.001 < (found - plain).norm() / plain.norm() < 0.1


@pytest.mark.parametrize(
    ("more", "what"),
    [("siglip_embedder.1", "edits pictures"), ("dec_net.cond_embed", "draws pixels")],
)
def test_variants_are_refused_by_name(more: str, what: str, tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_zimage(), "original")
    save_file(state | {f"{more}.weight": torch.ones(2, 2)}, path)
    with pytest.raises(EraseError, match=rf"model\.safetensors: This is a Z-Image that {what}"):
        load(family_of(path), path)


def test_a_damaged_file_says_what_it_lacks(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_zimage(), "original")
    save_file({n: t for n, t in state.items() if "final" not in n}, path)
    with pytest.raises(EraseError, match=r"lacks 4 tensors \(final_layer"):
        load(family_of(path), path)
    save_file({n: t for n, t in state.items() if "x_embedder" not in n}, path)
    with pytest.raises(EraseError, match=r"not a Z-Image transformer \('x_embedder.weight' is"):
        load(family_of(path), path)


def test_lumina_is_called_by_its_name(tmp_path: Path) -> None:
    path, state = tmp_path / "lumina.safetensors", state_of(make_zimage(), "original")
    save_file({n: t for n, t in state.items() if "pad_token" not in n}, path)
    with pytest.raises(EraseError, match=r"lumina\.safetensors is a Lumina Image 2 model"):
        family_of(path)


# --- the text encoder -----------------------------------------------------------------------------


def test_prompts_are_encoded_as_diffusers_does(folder: Path) -> None:
    pipeline: Any = make_pipeline()
    wanted = pipeline._encode_prompt(list(PROMPTS), CPU)
    text = ChatText(load_qwen(folder / "text_encoder", UNUSED), make_tokenizer())
    found = text.encode(PROMPTS)
    counts = [len(states) for states in wanted]
    assert found.mask is not None and found.mask.sum(1).tolist() == counts
    assert max(counts) > 32 and found.context.shape == (3, 64, DIM // 12)  # filled up to 32s
    for row, states in zip(found.rows(), wanted, strict=True):
        torch.testing.assert_close(row, states, atol=2e-5, rtol=1e-4)
    assert not found.context[~found.mask].any() and wanted[0].std() > 0.3
    assert found.negative is not None
    torch.testing.assert_close(found.negative.rows()[0], found.rows()[1], atol=2e-5, rtol=1e-4)


def test_prompts_of_several_lengths_go_together() -> None:
    short, long = Conditioning(torch.ones(1, 32, 4)), Conditioning(torch.ones(2, 64, 4))
    parts = [
        replace(part, mask=torch.ones(part.context.shape[:2], dtype=torch.bool))
        for part in (short, long)
    ]
    both = Conditioning.cat(parts)
    assert both.context.shape == (3, 64, 4) and both.mask is not None
    assert both.mask.sum(1).tolist() == [32, 64, 64] and not both.context[0, 32:].any()


def test_the_template_is_the_tokenizers_own() -> None:
    """As diffusers calls it: with thinking, which leaves the thought open."""
    for prompt in PROMPTS:
        wanted = make_tokenizer().apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        assert ChatText(None, make_tokenizer()).templated([prompt]) == [wanted]


@pytest.mark.parametrize("word", ["tiger", "user", "assistant", "car"])
def test_words_are_the_prompts_and_not_the_templates(word: str) -> None:
    tokenizer = make_tokenizer()
    text = ChatText(None, tokenizer)
    mask = text.token_mask(PROMPTS[2], word)
    (ids,) = tokenizer(text.templated([PROMPTS[2]]))["input_ids"]
    picked = [ids[int(row)] for row in mask.nonzero()]
    assert mask.shape == (512,) and tokenizer.decode(picked).strip() == word


def test_another_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(state_of(make_zimage(), "original"), other)
    files = Files(other, qwen=folder / "text_encoder", tokenizers=folder)
    with pytest.raises(EraseError, match=r"Qwen3 encoder is 32 wide, .* reads 16.*--qwen"):
        open_files(files, CPU)


# --- drawing --------------------------------------------------------------------------------------


def test_a_pipelines_folder_draws(folder: Path) -> None:
    """All of it as diffusers' own pipeline has it, whose guidance is less by one."""
    model = open_files(Files(folder), CPU)
    assert (model.config.hidden_size, model.config.depth) == (DIM, 2)
    pipeline: Any = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    sigmas = model.sigmas(4)
    pipeline.scheduler.set_shift(1.0)
    noise = model.noise([3], (32, 48))
    (theirs,) = pipeline(
        prompt="a photo of a tiger", height=32, width=48, num_inference_steps=4,
        sigmas=sigmas[:-1].tolist(), guidance_scale=2.0, latents=noise, output_type="np",
        return_dict=False,
    )  # fmt: skip
    ours = model.generate(["a photo of a tiger"], [3], size=(32, 48), steps=4, guidance=3.0)
    assert theirs.std() > 0.02
    assert (ours[0] / 255 - torch.from_numpy(theirs[0])).abs().max() < 1 / 255


# --- LoRA names -----------------------------------------------------------------------------------


def test_roles_are_what_reads_text_or_image_or_both() -> None:
    config = ZImageConfig()
    assert len(ZIMAGE_FAMILY.slots(config, ("add_q_proj", "text.k"))) == 2 * 2
    assert len(ZIMAGE_FAMILY.slots(config, TEXT)) == 1 + 2 * 7
    assert len(ZIMAGE_FAMILY.slots(config, ["single.attention"])) == 3 * 30
    slot = ZIMAGE_FAMILY.slots(config, ["text.k"])["context_refiner.1.attention.to_k"]
    assert slot.module == "context_refiner.1.attention.qkv"
    assert slot.rows == slice(3840, 2 * 3840) and slot.in_features == 3840
    with pytest.raises(EraseError, match="Unknown LoRA target pooled_in"):
        ZIMAGE_FAMILY.slots(config, ["pooled_in"])


def test_linears_are_diffusers_own() -> None:
    with torch.device("meta"):
        theirs = ZImageTransformer2DModel()
    wanted = {n for n, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(ZIMAGE_FAMILY.linears(ZImageConfig())) == wanted


def test_a_lora_is_diffusers_own() -> None:
    """Under its names, and of the same effect, for every role."""
    model = make_zimage()
    lora = random_lora(model, 0.2)
    theirs = ZImageTransformer2DModel(
        dim=128, n_layers=2, n_refiner_layers=1, n_heads=1, n_kv_heads=1, cap_feat_dim=16
    )
    theirs.load_state_dict(to_diffusers(model.tree.state_dict()))
    state = ZImagePipeline.lora_state_dict(lora.tensors())
    assert state.keys() == lora.tensors().keys()
    ZImagePipeline.load_lora_into_transformer(state, theirs)
    taken = [name for name, _ in theirs.named_parameters() if "lora_A" in name]
    assert len(taken) == len(lora.slots)
    theirs.fuse_lora()
    theirs.unload_lora()
    merged = Model(**{**vars(model), "tree": type(model.tree)(ZIMAGE)})
    merged.tree.load_state_dict(from_diffusers(theirs.state_dict()))
    cond, x, sigma = model.text.encode(PROMPTS[:2]), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        changed, plain = (model.velocity(x, sigma, cond, None, e) for e in (lora, None))
        torch.testing.assert_close(
            changed, merged.velocity(x, sigma, cond, None), atol=1e-4, rtol=0
        )
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_its_presets_are_said_to_be_unmeasured() -> None:
    for family in (ZIMAGE_FAMILY, ZIMAGE_FAMILY.of(Path("z_image_turbo.safetensors"))):
        presets = family.presets["eraseanything"]
        assert not any(preset["measured"] for preset in presets.values())
        assert presets["balanced"]["all"]["targets"] == TEXT
        assert (presets["balanced"]["all"]["eta"], presets["fast"]["all"]["steps"]) == (0.0, 100)
        assert "eta" not in presets["paper"]["all"] and presets["paper"]["all"]["l_attn"] == 5.0
    assert skeleton(ZIMAGE).x_pad_token.is_meta
