"""Stable Diffusion 3.5's files, text encoders, guidance and LoRA names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from models.kinds import random_lora
from safetensors.torch import save_file
from sd3 import CLIP, CONFIG, make_pipeline, make_tokenizer, save_pipeline
from tiny import SD3_FAMILY, SD3_SIZES, make_sd3
from torch import Tensor

from erase_core.errors import EraseError
from erase_core.models.base import Model
from erase_core.models.files import Files, family_of, open_files
from erase_core.models.load import load
from erase_core.models.sd3.config import LARGE, SD3Config
from erase_core.models.sd3.names import from_diffusers, to_diffusers
from erase_core.models.sd3.parity import diffusers_model
from erase_core.models.sd3.text import ThreeEncoders

PROMPTS = ["a photo of a tiger", "", "a red tiger and a lion on a green background, two cars"]
CPU = torch.device("cpu")


def state_of(model: Model, layout: str) -> dict[str, Tensor]:
    state = model.tree.state_dict()
    named = state if layout == "original" else to_diffusers(state, model.config)
    return {name: tensor.clone() for name, tensor in named.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("sd") / "stable-diffusion-3.5-toy")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Model:
    return open_files(Files(folder, t5_length=40), CPU)


@pytest.mark.parametrize("layout", ["original", "diffusers", "checkpoint"])
def test_files_come_back(layout: str, tmp_path: Path) -> None:
    """In either layout, and from a checkpoint with encoders and autoencoder; also where the places,
    as diffusers' folders have them, are wider than the rest."""
    model, path = make_sd3(), tmp_path / "sd3.5_toy.safetensors"
    state = state_of(model, "diffusers" if layout == "diffusers" else "original")
    state = {name: tensor.half() for name, tensor in state.items()}
    name = "pos_embed.pos_embed" if layout == "diffusers" else "pos_embed"
    state[name] = state[name].float()
    if layout == "checkpoint":
        state = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
        state |= {f"{n}.weight": torch.ones(2, 2) for n in ("first_stage_model", "text_encoders")}
    save_file(state, path)
    assert family_of(path) is SD3_FAMILY
    tree, config = load(SD3_FAMILY, path)
    assert config == SD3_SIZES
    wanted = {n: t.half().bfloat16() for n, t in model.tree.state_dict().items()}
    wanted["pos_embed"] = model.tree.get_parameter("pos_embed").bfloat16()
    assert wanted.keys() == tree.state_dict().keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tree.state_dict().items())


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_fp8_files_compute_as_they_say(layout: str, tmp_path: Path) -> None:
    """All of it fp8, what is no matrix among it; one of our matrices scaled."""
    model, path = make_sd3(), tmp_path / "fp8.safetensors"
    state = state_of(model, layout)
    narrow = {n: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for n, t in state.items()}
    parts = {
        "original": ["joint_blocks.0.context_block.attn.qkv"],
        "diffusers": [f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"],
    }
    save_file(narrow | {f"{n}.scale_weight": torch.tensor(1.0) for n in parts[layout]}, path)
    tree, _ = load(SD3_FAMILY, path)
    assert tree.context_embedder.weight.itemsize == 1 or layout == "diffusers"
    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    cond = model.text.encode(PROMPTS[:1] * 2)
    with torch.no_grad():
        plain = model.velocity(x, sigma, cond)
        found = replace(model, tree=tree).velocity(x, sigma, cond)
    assert 0.001 < (found - plain).norm() / plain.norm() < 0.1


def test_what_is_no_text_to_image_model_is_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_sd3(), "original")
    wide = torch.ones(128, 33, 2, 2)
    for more, what in (
        ({"x_embedder.proj.weight": wide}, "with 33 input channels, which takes more"),
        ({"context_processor.layers.0.attn.qkv.weight": wide}, "was never published"),
    ):
        save_file(state | more, path)
        with pytest.raises(EraseError, match=f"This is a Stable Diffusion 3 .*{what}"):
            load(family_of(path), path)
    save_file(state | {"controlnet_blocks.0.weight": wide}, path)
    with pytest.raises(EraseError, match=r"model\.safetensors is a ControlNet"):
        family_of(path)


def test_a_damaged_file_says_what_it_lacks(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_sd3(), "original")
    save_file({n: t for n, t in state.items() if "final" not in n}, path)
    with pytest.raises(EraseError, match=r"lacks 4 tensors \(final_layer"):
        load(family_of(path), path)
    save_file({n: t for n, t in state.items() if "y_embedder" not in n}, path)
    with pytest.raises(EraseError, match=r"not a Stable Diffusion 3 transformer \('y_embedder"):
        load(family_of(path), path)


# --- the text encoders ----------------------------------------------------------------------------


def test_prompts_are_encoded_as_diffusers_does(opened: Model) -> None:
    """CLIP-L's pooled vector is taken as it is, which in published pipelines the projection of its
    own comes to."""
    pipeline: Any = make_pipeline()
    wanted, _, pooled, _ = pipeline.encode_prompt(
        PROMPTS, None, None, device=CPU, do_classifier_free_guidance=False, max_sequence_length=40
    )
    found = opened.text.encode(PROMPTS)
    assert found.mask is None and found.context.shape == (3, 77 + 40, CONFIG.context_in_dim)
    assert found.pooled is not None
    for ours, theirs in ((found.context, wanted), (found.pooled, pooled)):
        assert theirs.std() > 0.3
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert not found.context[:, :77, 2 * CLIP :].any()
    assert found.negative is not None and found.negative.pooled is not None
    torch.testing.assert_close(found.negative.context, found.context[1:2], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("word", ["tiger", "lion", "green background", "cars"])
def test_words_are_found_by_both_tokenizers(opened: Model, word: str) -> None:
    mask = opened.text.token_mask(PROMPTS[2], word)
    assert mask.shape == (77 + 40,)
    for name, part in zip(("clip_l", "t5xxl"), mask.split([77, 40]), strict=True):
        tokenizer = make_tokenizer(name)
        ids = tokenizer(PROMPTS[2])["input_ids"]
        spelled = "".join(
            tokenizer.convert_ids_to_tokens([ids[int(row)] for row in part.nonzero()])
        )
        assert spelled.replace("</w>", " ").replace("\u2581", " ").strip() == word


def test_a_word_that_one_encoder_does_not_read_is_refused(opened: Model) -> None:
    with pytest.raises(EraseError, match=r'"tiger" lies past the 40 tokens'):
        opened.text.token_mask("a red car and " * 11 + "a tiger", "tiger")


def test_other_encoders_are_refused(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file(state_of(make_sd3(), "original"), other)
    encoders = {
        "clip_l": folder / "text_encoder",
        "clip_g": folder / "text_encoder_2",
        "t5": folder / "text_encoder_3",
    }
    files = Files(other, tokenizers=folder, **encoders)
    with pytest.raises(EraseError, match=r"CLIP-L and CLIP-G encoder is 112 wide, .* reads 8"):
        open_files(files, CPU)
    files = replace(files, model=folder)
    with pytest.raises(EraseError, match=r"is not a CLIP text encoder; choose clip_g"):
        open_files(replace(files, clip_g=folder / "text_encoder_3" / "model.safetensors"), CPU)
    with pytest.raises(EraseError, match="name one with --clip-g"):
        open_files(Files(other, tokenizers=folder, clip_l=encoders["clip_l"]), CPU)


def test_encoders_are_let_go(folder: Path) -> None:
    text = open_files(Files(folder), CPU).text
    assert isinstance(text, ThreeEncoders) and text.flop > 1e6 and text.length == 77 + 256
    text.release()
    assert text.token_mask("a tiger", "tiger").sum() > 1


# --- drawing --------------------------------------------------------------------------------------


def test_a_pipelines_folder_draws(folder: Path) -> None:
    """All of it as diffusers' own pipeline has it."""
    model = open_files(Files(folder), CPU)
    assert model.config == CONFIG
    pipeline: Any = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    sigmas = model.sigmas(4)
    pipeline.scheduler.set_shift(1.0)
    (theirs,) = pipeline(
        prompt="a photo of a tiger", height=32, width=48, num_inference_steps=4,
        sigmas=sigmas[:-1].tolist(), guidance_scale=3.0, latents=model.noise([3], (32, 48)),
        output_type="np", return_dict=False,
    )  # fmt: skip
    ours = model.generate(["a photo of a tiger"], [3], size=(32, 48), steps=4, guidance=3.0)
    assert theirs.std() > 0.02
    assert (ours[0] / 255 - torch.from_numpy(theirs[0])).abs().max() < 1 / 255


# --- LoRA names -----------------------------------------------------------------------------------


def test_roles_are_the_streams_own() -> None:
    """The last block writes no text, so that nothing comes out of it."""
    medium = SD3Config()
    assert len(SD3_FAMILY.slots(medium, ("add_q_proj", "text.k"))) == 2 * 24
    assert len(SD3_FAMILY.slots(medium, ["text.out", "text.mlp_out"])) == 2 * 23
    assert len(SD3_FAMILY.slots(medium, ["image.attention"])) == 4 * (24 + 13)
    assert len(SD3_FAMILY.slots(LARGE, ["image.attention"])) == 4 * 38
    assert [*SD3_FAMILY.slots(medium, ["text_in"])] == ["context_embedder"]
    slot = SD3_FAMILY.slots(medium, ["text.k"])["transformer_blocks.1.attn.add_k_proj"]
    assert slot.module == "joint_blocks.1.context_block.attn.qkv"
    assert slot.rows == slice(1536, 2 * 1536) and slot.in_features == 1536
    with pytest.raises(EraseError, match="Unknown LoRA target single.attention"):
        SD3_FAMILY.slots(medium, ["single.attention"])


@pytest.mark.parametrize("config", [SD3Config(), LARGE], ids=["medium", "large"])
def test_linears_are_diffusers_own(config: SD3Config) -> None:
    """All but those whose halves stand the other way round."""
    with torch.device("meta"):
        theirs = diffusers_model(config)
    wanted = {n for n, m in theirs.named_modules() if isinstance(m, torch.nn.Linear)}
    last = f"transformer_blocks.{config.depth - 1}.norm1_context.linear"
    assert wanted - set(SD3_FAMILY.linears(config)) == {"norm_out.linear", last}


def test_a_lora_is_diffusers_own() -> None:
    """Under its names, and of the same effect, for every role."""
    model = make_sd3()
    lora, theirs = random_lora(model), diffusers_model(SD3_SIZES)
    theirs.load_state_dict(to_diffusers(model.tree.state_dict(), SD3_SIZES))
    state = StableDiffusion3Pipeline.lora_state_dict(lora.tensors())
    assert state.keys() == lora.tensors().keys()
    StableDiffusion3Pipeline.load_lora_into_transformer(state, theirs)
    taken = [name for name, _ in theirs.named_parameters() if "lora_A" in name]
    assert len(taken) == len(lora.slots)
    theirs.fuse_lora()
    theirs.unload_lora()
    merged = Model(**{**vars(model), "tree": type(model.tree)(SD3_SIZES)})
    merged.tree.load_state_dict(from_diffusers(theirs.state_dict()))
    cond, x, sigma = model.text.encode(PROMPTS[:1] * 2), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        changed, plain = (model.velocity(x, sigma, cond, None, e) for e in (lora, None))
        torch.testing.assert_close(
            changed, merged.velocity(x, sigma, cond, None), atol=1e-4, rtol=0
        )
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_a_lora_loads_into_diffusers_pipeline(folder: Path, opened: Model, tmp_path: Path) -> None:
    """By ``load_lora_weights`` of the file, and draws what it draws here."""
    lora, pipeline = random_lora(opened), StableDiffusion3Pipeline.from_pretrained(folder)
    lora.save(tmp_path / "lora.safetensors")
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    cond, x, sigma = opened.text.encode(PROMPTS[:1]), opened.noise([1], (32, 48)), torch.ones(1)
    with torch.no_grad():
        plain, changed = (opened.velocity(x, sigma, cond, None, e) for e in (None, lora))
        (theirs,) = pipeline.transformer(
            x, cond.context, cond.pooled, 1000 * sigma, return_dict=False
        )
    torch.testing.assert_close(changed, theirs, atol=1e-4, rtol=0)
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_its_presets_are_said_to_be_unmeasured() -> None:
    turbo = SD3_FAMILY.of(Path("sd3.5_large_turbo.safetensors"))
    for family, guidance in ((SD3_FAMILY, 4.0), (turbo, 1.0)):
        presets = family.presets["eraseanything"]
        assert not any(preset["measured"] for preset in presets.values())
        assert presets["balanced"]["all"]["guidance_rollout"] == guidance
    assert presets["paper"]["all"] == {
        "steps": 1000, "l_attn": 5.0, "l_lora": 0.1, "guidance_rollout": 1.0, "rollout_steps": 4,
    }  # fmt: skip
