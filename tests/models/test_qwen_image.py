"""Qwen-Image's files, text encoder, autoencoder and LoRA names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import QwenImagePipeline
from klein import make_tokenizer
from models.kinds import random_lora
from qwen import CONFIG, WIDTH, make_pipeline, make_vae, save_pipeline
from safetensors.torch import load_file, save_file
from tiny import QWEN_IMAGE, QWEN_IMAGE_FAMILY, make_qwen_image
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.models.base import Model
from erase_core.models.files import Files, family_of, open_files
from erase_core.models.flux1.forward import patchify, unpatchify
from erase_core.models.load import load
from erase_core.models.qwen_image.autoencoder import QwenImageAutoencoder, wan_names
from erase_core.models.qwen_image.config import QwenImageConfig
from erase_core.models.qwen_image.parity import diffusers_model
from erase_core.models.qwen_image.text import LENGTH, ChatText, load_qwen

PROMPTS = [
    "a photo of a tiger",
    "",
    "a user and an assistant describe the image of a tiger in the deep snow, two lions, a car",
]
CPU = torch.device("cpu")


def state_of(model: Model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.tree.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("qwen") / "Qwen-Image")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Model:
    return open_files(Files(folder), CPU)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_files_come_back(prefix: str, tmp_path: Path) -> None:
    model, path = make_qwen_image(), tmp_path / "qwen_image_bf16.safetensors"
    save_file({prefix + name: tensor for name, tensor in state_of(model).items()}, path)
    assert family_of(path) is QWEN_IMAGE_FAMILY
    tree, config = load(QWEN_IMAGE_FAMILY, path)
    assert config == QWEN_IMAGE
    wanted = model.tree.state_dict()
    assert wanted.keys() == tree.state_dict().keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tree.state_dict().items())


def test_fp8_files_compute_as_they_say(tmp_path: Path) -> None:
    """One of our matrices scaled."""
    model, path = make_qwen_image(), tmp_path / "fp8.safetensors"
    state = {n: t.bfloat16() for n, t in state_of(model).items()}
    narrow = {n: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for n, t in state.items()}
    scaled = "transformer_blocks.0.attn.add_k_proj.scale_weight"
    save_file(narrow | {scaled: torch.tensor(1.0)}, path)
    tree, _ = load(QWEN_IMAGE_FAMILY, path)
    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    cond = model.text.encode(PROMPTS[:1] * 2)
    with torch.no_grad():
        plain = model.velocity(x, sigma, cond)
        found = replace(model, tree=tree).velocity(x, sigma, cond)
    assert 0.001 < (found - plain).norm() / plain.norm() < 0.1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("qwen_image_edit_fp8_e4m3fn", "Qwen-Image-Edit, which edits pictures"),
        ("Qwen-Image-Edit-2509", "Qwen-Image-Edit-Plus, which edits several pictures"),
        ("qwen_image_edit_2511_bf16", "Qwen-Image-Edit-Plus, which edits several pictures"),
        ("qwen_image_layered_bf16", "Qwen-Image-Layered, which splits a picture into layers"),
    ],
)
def test_variants_are_refused_by_name(name: str, what: str, tmp_path: Path) -> None:
    """Their tensors are the base model's."""
    path = tmp_path / f"{name}.safetensors"
    save_file(state_of(make_qwen_image()), path)
    with pytest.raises(EraseError, match=rf"^{name}\.safetensors is {what}; choose a"):
        load(family_of(path), path)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("QwenImageEditPipeline", "Qwen-Image-Edit,"),
        ("QwenImageEditPlusPipeline", "Qwen-Image-Edit-Plus,"),
        ("QwenImageLayeredPipeline", "Qwen-Image-Layered,"),
    ],
)
def test_variants_folders_are_refused_by_their_index(kind: str, what: str, tmp_path: Path) -> None:
    place = tmp_path / "mine" / "transformer"
    place.mkdir(parents=True)
    save_file(state_of(make_qwen_image()), place / "diffusion_pytorch_model.safetensors")
    (tmp_path / "mine" / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    for path in (place, place.parent):
        with pytest.raises(EraseError, match=f"{path.name} is {what}"):
            load(family_of(path), path)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"__index_timestep_zero__": torch.ones(0)}, "Qwen-Image-Edit-Plus,"),
        ({"time_text_embed.addition_t_embedding.weight": torch.ones(2, 128)}, "Qwen-Image-Layered"),
        (
            {"img_in.weight": torch.ones(128, 68)},
            "a Qwen-Image with 68 input channels, which takes",
        ),
    ],
)
def test_variants_are_refused_by_their_tensors(
    more: dict[str, Tensor], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state_of(make_qwen_image()) | more, path)
    with pytest.raises(EraseError, match=rf"mine\.safetensors: This is {what}"):
        load(family_of(path), path)


def test_a_controlnet_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state_of(make_qwen_image()) | {"controlnet_blocks.0.weight": torch.ones(2)}, path)
    with pytest.raises(EraseError, match=r"mine\.safetensors is a ControlNet"):
        family_of(path)


def test_a_damaged_file_says_what_it_lacks(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_qwen_image())
    save_file({n: t for n, t in state.items() if "proj_out" not in n}, path)
    with pytest.raises(EraseError, match=r"lacks 2 tensors \(proj_out"):
        load(family_of(path), path)
    save_file({n: t for n, t in state.items() if "img_in" not in n}, path)
    with pytest.raises(EraseError, match=r"not a Qwen-Image transformer \('img_in.weight' is"):
        load(family_of(path), path)


# --- the text encoder -----------------------------------------------------------------------------


def test_prompts_are_encoded_as_diffusers_does(opened: Model) -> None:
    """Without the template's tokens before them, and with those behind."""
    wanted, mask = make_pipeline().encode_prompt(list(PROMPTS), CPU)
    found = opened.text.encode(PROMPTS)
    assert found.mask is not None and torch.equal(found.mask, mask.bool())
    assert found.context.shape == (3, int(mask.sum(1).max()), WIDTH) and wanted.std() > 0.3
    torch.testing.assert_close(found.context, wanted, atol=2e-5, rtol=1e-4)
    assert found.negative is not None
    torch.testing.assert_close(found.negative.rows()[0], found.rows()[1], atol=2e-5, rtol=1e-4)


def test_long_prompts_are_cut_where_diffusers_cuts_them(opened: Model) -> None:
    long = "a photo of a tiger and a lion " * 70
    wanted, _ = make_pipeline().encode_prompt([long], CPU, max_sequence_length=LENGTH)
    found = opened.text.encode([long])
    assert found.context.shape == (1, LENGTH, WIDTH)
    torch.testing.assert_close(found.context, wanted, atol=2e-5, rtol=1e-4)
    with pytest.raises(EraseError, match=r'"car" lies past the'):
        opened.text.token_mask(long + "and a car", "car")


def test_the_template_is_diffusers_own() -> None:
    own = make_pipeline().prompt_template_encode
    assert ChatText(None, make_tokenizer()).templated([PROMPTS[0]]) == [own.format(PROMPTS[0])]


@pytest.mark.parametrize("word", ["tiger", "user", "assistant", "image", "car"])
def test_words_are_the_prompts_and_not_the_templates(word: str) -> None:
    tokenizer = make_tokenizer()
    text = ChatText(None, tokenizer)
    mask = text.token_mask(PROMPTS[2], word)
    (ids,) = tokenizer(text.templated([PROMPTS[2]]))["input_ids"]
    picked = [ids[text.before + int(row)] for row in mask.nonzero()]
    assert mask.shape == (LENGTH,) and tokenizer.decode(picked).strip() == word


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model."])
def test_other_layouts_and_fp8_encode_alike(prefix: str, folder: Path, tmp_path: Path) -> None:
    """As transformers writes them by turns; the eyes are not looked at."""
    state = load_file(folder / "text_encoder" / "model.safetensors")
    named = {
        name.replace("model.", prefix, 1) if name.startswith("model.layers") else name: tensor
        for name, tensor in state.items()
    }
    named[f"{prefix}embed_tokens.weight"] = named.pop("model.embed_tokens.weight")
    named[f"{prefix}norm.weight"] = named.pop("model.norm.weight")
    save_file(named, tmp_path / "whole.safetensors")
    linear = f"{prefix}layers.0.mlp.up_proj"
    narrow = named[f"{linear}.weight"].to(torch.float8_e4m3fn)
    scaled = {f"{linear}.weight": narrow, f"{linear}.scale_weight": torch.tensor(1.0)}
    save_file(named | scaled, tmp_path / "fp8.safetensors")
    ids = torch.arange(5, 25)[None]
    own, whole, fp8 = (
        load_qwen(path)(input_ids=ids).last_hidden_state
        for path in (
            folder / "text_encoder", tmp_path / "whole.safetensors", tmp_path / "fp8.safetensors",
        )
    )  # fmt: skip
    torch.testing.assert_close(whole, own)
    assert 0.001 < (fp8 - own).norm() / own.norm() < 0.2


def test_other_encoders_are_refused(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(state_of(make_qwen_image()), other)
    files = Files(other, qwen=folder / "text_encoder", tokenizers=folder)
    with pytest.raises(EraseError, match=r"Qwen2.5-VL encoder is 256 wide, .* reads 16.*--qwen"):
        open_files(files, CPU)
    with pytest.raises(EraseError, match=r"is not a Qwen2.5-VL text encoder; choose qwen_2.5_vl"):
        open_files(replace(files, qwen=other), CPU)


def test_the_encoder_is_let_go(folder: Path) -> None:
    text = open_files(Files(folder), CPU).text
    assert isinstance(text, ChatText) and text.flop > 1e6 and text.length == LENGTH
    text.release()
    assert text.token_mask("a tiger", "tiger").sum() >= 1


# --- the autoencoder ------------------------------------------------------------------------------


def in_wans_names(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "qwen_image_vae.safetensors"
    tensors = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(wan_names(tensors), path)
    return path


@pytest.mark.parametrize("layout", ["diffusers", "wan"])
def test_pictures_and_latents_are_diffusers_own(layout: str, folder: Path, tmp_path: Path) -> None:
    """Of one moment in time."""
    path = folder / "vae" if layout == "diffusers" else in_wans_names(folder, tmp_path)
    ours, theirs = QwenImageAutoencoder.load(path), make_vae()
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    mean, deviation = (
        torch.tensor(theirs.config[f"latents_{what}"])[:, None, None] for what in ("mean", "std")
    )
    latents = theirs.encode(2 * pictures[:, :, None] - 1).latent_dist.mode()[:, :, 0]
    drawn = theirs.decode(latents[:, :, None]).sample[:, :, 0] / 2 + 0.5
    assert latents.std() > 0.1 and drawn.std() > 0.02
    unit = (latents - mean) / deviation
    torch.testing.assert_close(ours.encode(pictures), unit, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.decode(unit), drawn, atol=2e-5, rtol=1e-4)


def test_other_autoencoders_are_refused(folder: Path, tmp_path: Path) -> None:
    path = in_wans_names(folder, tmp_path)
    save_file({n: t for n, t in load_file(path).items() if "middle.1" not in n}, path)
    with pytest.raises(EraseError, match="is not Qwen-Image's autoencoder; choose qwen_image_vae"):
        QwenImageAutoencoder.load(path)


# --- drawing --------------------------------------------------------------------------------------


def test_a_pipelines_folder_draws(opened: Model) -> None:
    """All of it as diffusers' own pipeline has it, which changes the length of what is guided."""
    assert opened.config == CONFIG
    pipeline: Any = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    sigmas = opened.sigmas(4)
    pipeline.scheduler.set_shift(1.0)
    noise = opened.noise([3], (32, 48))
    (theirs,) = pipeline(
        prompt=PROMPTS[0], height=32, width=48, num_inference_steps=4,
        sigmas=sigmas[:-1].tolist(), true_cfg_scale=1.0, latents=patchify(noise)[0],
        output_type="np", return_dict=False,
    )  # fmt: skip
    ours = opened.generate(PROMPTS[:1], [3], size=(32, 48), steps=4, guidance=1.0)
    assert theirs.std() > 0.02
    assert (ours[0] / 255 - torch.from_numpy(theirs[0])).abs().max() < 1 / 255


# --- LoRA names -----------------------------------------------------------------------------------


def test_roles_are_the_streams_own() -> None:
    config = QwenImageConfig()
    assert len(QWEN_IMAGE_FAMILY.slots(config, ("add_q_proj", "text.k"))) == 2 * 60
    assert len(QWEN_IMAGE_FAMILY.slots(config, ["text.out", "text.mlp_out"])) == 2 * 60
    assert len(QWEN_IMAGE_FAMILY.slots(config, ["image.attention"])) == 4 * 60
    assert [*QWEN_IMAGE_FAMILY.slots(config, ["text_in"])] == ["txt_in"]
    name = "transformer_blocks.1.attn.add_k_proj"
    slot = QWEN_IMAGE_FAMILY.slots(config, ["text.k"])[name]
    assert (slot.module, slot.rows, slot.in_features) == (name, slice(0, 3072), 3072)
    with pytest.raises(EraseError, match="Unknown LoRA target pooled_in"):
        QWEN_IMAGE_FAMILY.slots(config, ["pooled_in"])


def test_linears_are_diffusers_own() -> None:
    theirs = diffusers_model(QwenImageConfig(), "meta")
    wanted = {n for n, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(QWEN_IMAGE_FAMILY.linears(QwenImageConfig())) == wanted


def test_a_lora_loads_into_diffusers_pipeline(folder: Path, opened: Model, tmp_path: Path) -> None:
    """By ``load_lora_weights`` of the file, under its names, for every role, and draws what it
    draws here."""
    lora, pipeline = random_lora(opened), QwenImagePipeline.from_pretrained(folder)
    lora.save(tmp_path / "lora.safetensors")
    state = QwenImagePipeline.lora_state_dict(tmp_path / "lora.safetensors")
    assert state.keys() == lora.tensors().keys()
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    taken = [name for name, _ in pipeline.transformer.named_parameters() if "lora_A" in name]
    assert len(taken) == len(lora.slots) == 2 * 9 + 1
    cond, x, sigma = opened.text.encode(PROMPTS[:1]), opened.noise([1], (32, 48)), torch.ones(1)
    img, rows, columns = patchify(x)
    with torch.no_grad():
        plain, changed = (opened.velocity(x, sigma, cond, None, e) for e in (None, lora))
        (theirs,) = pipeline.transformer(
            img, cond.context, None, sigma, [[(1, rows, columns)]], return_dict=False
        )
    torch.testing.assert_close(changed, unpatchify(theirs, rows, columns), atol=1e-4, rtol=0)
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_its_presets_are_said_to_be_unmeasured() -> None:
    few = QWEN_IMAGE_FAMILY.of(Path("qwen_image_distill_full.safetensors"))
    for family, guidance in ((QWEN_IMAGE_FAMILY, 4.0), (few, 1.0)):
        presets = family.presets["eraseanything"]
        assert not any(preset["measured"] for preset in presets.values())
        assert presets["balanced"]["all"]["guidance_rollout"] == guidance
    assert presets["paper"]["all"] == {
        "steps": 1000, "l_attn": 5.0, "l_lora": 0.1, "guidance_rollout": 1.0, "rollout_steps": 8,
    }  # fmt: skip
