"""FLUX.2 klein's files, text encoder, autoencoder, guidance and LoRA names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from klein import make_pipeline, make_tokenizer, make_vae, save_pipeline
from models.kinds import random_lora
from safetensors.torch import save_file
from tiny import FLUX2, FLUX2_FAMILY, make_flux2, make_model
from torch import Tensor

from erase_core.concepts.spans import word_spans
from erase_core.erasers.load import load as load_eraser
from erase_core.errors import EraseError
from erase_core.models.base import Model
from erase_core.models.files import Files, family_of, open_files
from erase_core.models.flux1.names import file_keys, tree_keys
from erase_core.models.flux2.autoencoder import Flux2Autoencoder
from erase_core.models.flux2.config import Flux2Config
from erase_core.models.flux2.names import NAMING, skeleton
from erase_core.models.flux2.text import QwenText, load_qwen
from erase_core.models.load import load

PROMPTS = ["a photo of a tiger", "", "a user and an assistant think of a tiger, a car"]
CPU = torch.device("cpu")
State = dict[str, Tensor]


def state_of(model: Model, layout: str) -> State:
    state = model.tree.state_dict()
    named = file_keys(state) if layout == "bfl" else NAMING.to_diffusers(state, FLUX2)
    return {name: tensor.contiguous() for name, tensor in named.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("klein"))


@pytest.mark.parametrize("layout", ["bfl", "diffusers"])
def test_files_come_back(layout: str, tmp_path: Path) -> None:
    model, path = make_flux2(), tmp_path / "flux-2-klein-base-4b.safetensors"
    save_file(state_of(model, layout), path)
    assert family_of(path) is FLUX2_FAMILY
    tree, config = load(FLUX2_FAMILY, path)
    assert config == FLUX2
    wanted = model.tree.state_dict()
    assert wanted.keys() == tree.state_dict().keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tree.state_dict().items())


def test_fp8_files_compute_as_they_say(tmp_path: Path) -> None:
    """Matrices without biases, one of them scaled."""
    model, path = make_flux2(), tmp_path / "fp8.safetensors"
    state = {n: t.bfloat16() for n, t in state_of(model, "bfl").items()}
    narrow = {n: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for n, t in state.items()}
    save_file(narrow | {"txt_in.scale_weight": torch.tensor(1.0)}, path)
    tree, _ = load(FLUX2_FAMILY, path)
    x, sigma = model.noise([1, 2]), torch.tensor(0.7)
    cond = model.text.encode(PROMPTS[:2])
    with torch.no_grad():
        plain = model.velocity(x, sigma, cond)
        found = replace(model, tree=tree).velocity(x, sigma, cond)
    assert 0.001 < (found - plain).norm() / plain.norm() < 0.1


def test_dev_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = skeleton(replace(FLUX2, guidance_embed=True)).state_dict()
    save_file({n: torch.zeros(t.shape) for n, t in file_keys(state).items()}, path)
    with pytest.raises(EraseError, match=r"model\.safetensors: This is FLUX\.2-dev, .*klein"):
        load(family_of(path), path)


def test_a_damaged_file_says_what_it_lacks(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", state_of(make_flux2(), "bfl")
    save_file({n: t for n, t in state.items() if "final" not in n}, path)
    with pytest.raises(EraseError, match=r"lacks 2 tensors \(final_layer"):
        load(family_of(path), path)
    save_file({"double_stream_modulation_img.lin.weight": torch.ones(2, 2)}, path)
    with pytest.raises(EraseError, match=r"not a FLUX.2 transformer \('img_in.weight' is missing"):
        load(family_of(path), path)


# --- the text encoder -----------------------------------------------------------------------------


def test_prompts_are_encoded_as_diffusers_does(folder: Path) -> None:
    pipeline = make_pipeline()
    wanted = Flux2KleinPipeline._get_qwen3_prompt_embeds(
        pipeline.text_encoder, pipeline.tokenizer, PROMPTS
    )
    text = QwenText(load_qwen(folder / "text_encoder"), make_tokenizer())
    found = text.encode(PROMPTS)
    assert found.context.shape == (3, 512, FLUX2_FAMILY.rows["single.attention"] * 32)
    assert found.pooled is None and found.mask is None
    torch.testing.assert_close(found.context, wanted, atol=2e-5, rtol=1e-4)
    assert wanted.std() > 0.3
    assert found.negative is not None
    torch.testing.assert_close(found.negative.context[0], found.context[1])


def test_the_template_is_the_tokenizers_own() -> None:
    for prompt in PROMPTS:
        wanted = make_tokenizer().apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        assert QwenText(None, make_tokenizer()).templated([prompt]) == [wanted]


@pytest.mark.parametrize("word", ["tiger", "user", "assistant", "think", "car"])
def test_words_are_the_prompts_and_not_the_templates(word: str) -> None:
    prompt, tokenizer = PROMPTS[2], make_tokenizer()
    mask = QwenText(None, tokenizer).token_mask(prompt, word)
    (text,) = QwenText(None, tokenizer).templated([prompt])
    ids = tokenizer(text)["input_ids"]
    picked = [int(row) for row in mask.nonzero()]
    assert mask.shape == (512,) and tokenizer.decode([ids[row] for row in picked]).strip() == word
    ((start, _),) = word_spans(prompt, word)
    before = tokenizer(text[: text.index(prompt) + start])
    assert picked[0] in (len(before["input_ids"]) - 1, len(before["input_ids"]))


def test_a_word_past_the_end_is_refused() -> None:
    text = QwenText(None, make_tokenizer())
    with pytest.raises(EraseError, match="lies past the 512 tokens"):
        text.token_mask("snow " * 600 + "tiger", "tiger")
    with pytest.raises(EraseError, match='"user" is not in the prompt'):
        text.token_mask("a tiger", "user")


def test_another_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file({"model.embed_tokens.weight": torch.ones(4, 4)}, path)
    with pytest.raises(EraseError, match="is not a Qwen3 text encoder; choose qwen_3_4b"):
        load_qwen(path)
    other = tmp_path / "other.safetensors"
    model = make_model(type(make_flux2().tree)(replace(FLUX2, context_in_dim=24)))
    save_file(state_of(model, "bfl"), other)
    files = Files(other, qwen=folder / "text_encoder", tokenizers=folder)
    with pytest.raises(
        EraseError, match="Qwen3 encoder is 96 wide, but the model reads 24.*--qwen"
    ):
        open_files(files, CPU)


# --- the autoencoder ------------------------------------------------------------------------------


def test_pictures_are_diffusers_own(folder: Path) -> None:
    theirs, ours = make_vae(), Flux2Autoencoder.load(folder / "vae")
    torch.manual_seed(1)
    pictures = torch.rand(2, 3, 32, 48)
    norm = theirs.bn.running_mean, (theirs.bn.running_var + theirs.config.batch_norm_eps).sqrt()
    mean, spread = (part[None, :, None, None] for part in norm)
    packed = Flux2KleinPipeline._patchify_latents(
        theirs.encode(pictures * 2 - 1).latent_dist.mode()
    )
    latents = (packed - mean) / spread
    assert latents.shape == (2, 128, 2, 3)
    torch.testing.assert_close(ours.encode(pictures), latents, atol=1e-4, rtol=1e-4)
    drawn = theirs.decode(Flux2KleinPipeline._unpatchify_latents(packed)).sample
    wanted = (drawn / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ours.decode(latents), wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.05


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    state = {n: t for n, t in make_vae().state_dict().items() if not n.startswith("bn.")}
    save_file(state, tmp_path / "vae.safetensors")
    with pytest.raises(EraseError, match="is not FLUX.2's autoencoder; choose flux2-vae"):
        Flux2Autoencoder.load(tmp_path / "vae.safetensors")


# --- drawing --------------------------------------------------------------------------------------


def test_a_pipelines_folder_draws(folder: Path) -> None:
    """All of it as diffusers' own pipeline has it: prompt, four steps, guidance, picture."""
    model = open_files(Files(folder), CPU)
    assert model.config == replace(FLUX2, context_in_dim=96, depth_single_blocks=2)
    pipeline: Any = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    sigmas = model.sigmas(4)
    pipeline.scheduler.set_shift(1.0)
    noise = model.noise([3], (32, 48))
    (theirs,) = pipeline(
        prompt="a photo of a tiger", height=32, width=48, num_inference_steps=4,
        sigmas=sigmas[:-1].tolist(), guidance_scale=3.0, latents=noise, output_type="np",
        return_dict=False,
    )  # fmt: skip
    ours = model.generate(["a photo of a tiger"], [3], size=(32, 48), steps=4, guidance=3.0)
    assert (ours[0] / 255 - torch.from_numpy(theirs[0])).abs().max() < 1 / 255


# --- LoRA names -----------------------------------------------------------------------------------


def test_roles_are_flux_ones_without_the_pooled_vector() -> None:
    config = Flux2Config()
    assert len(FLUX2_FAMILY.slots(config, ("add_q_proj", "text.k"))) == 2 * 5
    slots = FLUX2_FAMILY.slots(config, ["single.attention"])
    assert len(slots) == 20
    slot = slots["single_transformer_blocks.19.attn.to_qkv_mlp_proj"]
    assert slot.rows == slice(0, 3 * 3072) and slot.whole == 9 * 3072
    with pytest.raises(EraseError, match="Unknown LoRA target pooled_in"):
        FLUX2_FAMILY.slots(config, ["pooled_in"])


def test_a_lora_is_diffusers_own() -> None:
    """Under its names, and of the same effect, for every role."""
    model = make_flux2()
    lora = random_lora(model, 0.2)
    theirs = Flux2Transformer2DModel(
        num_layers=FLUX2.depth,
        num_single_layers=FLUX2.depth_single_blocks,
        num_attention_heads=FLUX2.num_heads,
        joint_attention_dim=FLUX2.context_in_dim,
        guidance_embeds=False,
    )
    theirs.load_state_dict(NAMING.to_diffusers(model.tree.state_dict(), FLUX2))
    state = Flux2KleinPipeline.lora_state_dict(lora.tensors())
    assert state.keys() == lora.tensors().keys()
    Flux2KleinPipeline.load_lora_into_transformer(state, theirs)
    taken = [name for name, _ in theirs.named_parameters() if "lora_A" in name]
    assert len(taken) == len(lora.slots)
    theirs.fuse_lora()
    theirs.unload_lora()
    merged = Model(**{**vars(model), "tree": type(model.tree)(FLUX2)})
    merged.tree.load_state_dict(tree_keys(NAMING.to_bfl(theirs.state_dict())))
    cond, x, sigma = model.text.encode(PROMPTS[:2]), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        changed, plain = (model.velocity(x, sigma, cond, None, e) for e in (lora, None))
        torch.testing.assert_close(
            changed, merged.velocity(x, sigma, cond, None), atol=1e-4, rtol=0
        )
    assert (changed - plain).norm() > 0.01 * plain.norm()


def test_a_part_of_a_matrix_is_written_with_zeros_and_read_whole(tmp_path: Path) -> None:
    model = make_flux2()
    lora = random_lora(model, 0.2)
    name = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_B.weight"
    written = lora.tensors()[name]
    width = FLUX2.hidden_size
    assert written.shape == (9 * width, 2) and not written[3 * width :].any()
    assert written[: 3 * width].any()
    lora.save(tmp_path / "lora.safetensors")
    again = load_eraser(tmp_path / "lora.safetensors", model)
    assert torch.equal(again.tensors()[name], written)
    cond, x, sigma = model.text.encode(PROMPTS[:2]), model.noise([1, 2]), torch.tensor(0.7)
    with torch.no_grad():
        both = [model.velocity(x, sigma, cond, None, e) for e in (lora, again)]
    torch.testing.assert_close(*both)
