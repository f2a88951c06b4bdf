"""Qwen-Image inside the host's own process; see inside.py.

    python qwen.py qwen HOST PACKAGE BASE OUT

Small are the widths, the blocks, the text encoder and, where the host lets it be, the autoencoder;
the tokenizer is the host's. The host's loader knows Qwen-Image by its width, so that its classes
are called here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import inside  # the host's process

# isort: split
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.qwen_image
import comfy.text_encoders.qwen_vl
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.qwen_image import FAMILY
from eraseanything.erase_core.models.qwen_image.autoencoder import QwenImageAutoencoder
from eraseanything.erase_core.models.qwen_image.config import QwenImageConfig
from eraseanything.erase_core.models.qwen_image.text import ChatText, load_qwen
from eraseanything.erase_core.models.qwen_image.tree import QwenImage
from eraseanything.erase_core.models.tokens import read_tokenizer
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import drawing, hosts, load
from eraseanything.nodes.hosts import BASE as ATTACHED
from eraseanything.nodes.hosts import qwen_image as family
from inside import BASE, HOST, PROMPTS, SIGMA, relative, said
from small import Small, random_weights

QWEN = {
    "hidden_size": 256, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
CONFIG = QwenImageConfig(context_in_dim=256, hidden_size=256, num_heads=2, depth=2)
SIZES: dict[str, Any] = {
    "image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 2,
    "num_attention_heads": 2, "joint_attention_dim": 256,
}  # fmt: skip
PATH = BASE / "models" / "diffusion_models" / "qwen_image_toy.safetensors"
ENCODER = BASE / "models" / "text_encoders" / "qwen_vl_toy.safetensors"
VAE = BASE / "models" / "vae" / "qwen_image_vae_toy.safetensors"

TREE = random_weights(QwenImage(CONFIG))
for block in TREE.transformer_blocks:
    block.attn.add_v_proj.weight.mul_(4)
save_tensors(PATH, TREE.state_dict())
comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer = partial(
    comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer, num_layers=1
)


class Chatless(comfy.text_encoders.qwen_image.QwenImageTokenizer):
    """The same words without a chat, as other models read them."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.llama_template = "{}"


def unet(file: str, **built: Any) -> Any:
    """A MODEL of a file, in inference tensors as the executor has it."""
    path = PATH.with_name(file)
    with torch.inference_mode():
        config = comfy.supported_models.QwenImage(SIZES | built)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        if not built:
            model.load_model_weights(comfy.utils.load_torch_file(str(path)), "")
        device = comfy.model_management.get_torch_device()
        patcher = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    patcher.set_attachments(ATTACHED, str(path))
    return patcher


def fresh_clip(tokenizer: Any = comfy.text_encoders.qwen_image.QwenImageTokenizer) -> Any:
    options = {"qwen25_7b_model_config": QWEN, "dtype": torch.float32}
    target = ClipTarget(tokenizer, comfy.text_encoders.qwen_image.te())
    return comfy.sd.CLIP(target, model_options=options)


@cache
def make_clip() -> Any:
    """The host's CLIP of Qwen-Image: a small Qwen2.5-VL of random weights, written to a file."""
    clip = fresh_clip()
    generator = torch.Generator().manual_seed(4)
    inner = clip.cond_stage_model.qwen25_7b.transformer
    for name, parameter in inner.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(1 + 0.3 * noise if "norm" in name else 0.1 * noise)
    save_tensors(ENCODER, inner.state_dict())
    return clip


def make_text() -> Any:
    return family.Text(make_clip(), CONFIG)


@cache
def make_vae() -> Any:
    """The host's own VAE of a file of random weights."""
    named = 'dim = sd["decoder.head.0.gamma"]' in (HOST / "comfy" / "sd.py").read_text("utf-8")
    made = comfy.ldm.wan.vae.WanVAE(
        dim=8 if named else 96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(7)
    for name, parameter in made.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.zeros_(parameter)
    VAE.parent.mkdir(exist_ok=True)
    save_tensors(VAE, {name: t.detach().contiguous() for name, t in made.state_dict().items()})
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE)), dtype=torch.float32)


def standalone() -> Model:
    """The same transformer in the core, with the host's text encoder."""
    return Model(FAMILY, TREE, CONFIG, make_text(), None, "q", "", (64, 64), CONFIG.shift)


def latents() -> Any:
    return torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(0))


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes, prompt by prompt: (x - denoised) / sigma."""
    hosts.load(model)
    found = []
    with torch.inference_mode():
        for row, states in enumerate(cond.rows()):
            part, sigma = x[row : row + 1, :, None], SIGMA[row : row + 1]
            denoised = model.model.apply_model(part, sigma, c_crossattn=states[None])
            found.append(((part - denoised) / sigma)[:, :, 0].clone())
    return torch.cat(found)


def qwen_text() -> dict[str, Any]:
    """Qwen2.5-VL in the host against ours, from the same file, with the host's own tokenizer."""
    prompts = [*PROMPTS, "", "a (tiger:1.5)", "a tiger in the snow " * 6]
    found = make_text().encode(prompts)
    tokenizer = read_tokenizer(HOST / "comfy" / "text_encoders" / "qwen25_tokenizer")
    core = ChatText(load_qwen(ENCODER), tokenizer)
    ours = core.encode(prompts)
    mask = make_text().token_mask(PROMPTS[0], "tiger")
    ids = [token for token, _ in make_clip().tokenize(PROMPTS[0])["qwen25_7b"][0]]
    places = mask.nonzero().flatten().tolist()
    return {
        "before": [core.before, make_text().before],
        "shape": list(found.context.shape),
        "difference": relative(ours.context, found.context),
        "same_length": bool((ours.mask == found.mask).all()),
        "spread": float(found.context[found.mask].std()),
        "negative": relative(found.negative.rows()[0], found.rows()[2]),
        "word": tokenizer.decode([ids[core.before + row] for row in places]),
        "same_mask": bool((core.token_mask(PROMPTS[0], "tiger") == mask).all()),
    }


SMALL = Small(
    "qwen",
    PATH.name,
    0.08,
    make_clip,
    standalone,
    latents,
    sampled,
    unet,
    ("txt_in", "transformer_blocks.0.attn.add_k_proj"),
)
qwen_velocity, qwen_gradients, qwen_attention = SMALL.velocity, SMALL.gradients, SMALL.attention


def qwen_pictures() -> dict[str, Any]:
    return SMALL.pictures(make_vae(), 4)


def qwen_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL."""
    return SMALL.nodes(make_vae(), 64, "0, 1")


def qwen_vae() -> dict[str, Any]:
    """Pictures and latents of the host's VAE against ours, from the same file, two at once."""
    vae, model = make_vae(), unet(PATH.name)
    ours = QwenImageAutoencoder.load(VAE)
    pictures = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    drawn = drawing.decode(model, vae, latents()).movedim(-1, 1)
    found = drawing.encode(model, vae, pictures)
    return {
        "drawn": relative(ours.decode(latents()), drawn),
        "encoded": relative(ours.encode(pictures.movedim(-1, 1)), found),
        "spread": [float(drawn.std()), float(found.std())],
        "shapes": [list(drawn.shape), list(found.shape)],
    }


def qwen_shift() -> list[Any]:
    """Of the schedule as it comes."""
    model = unet(PATH.name)
    opened = replace(standalone(), shift_mu=family.HOST.shift(model))
    theirs = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    return [opened.shift_mu, float((opened.sigmas(8) - theirs).abs().max())]


def renamed(name: str) -> Any:
    """The same file under another name."""
    path = PATH.with_name(f"{name}.safetensors")
    path.write_bytes(PATH.read_bytes())
    return unet(path.name)


def qwen_distilled() -> dict[str, Any]:
    opened = hosts.open_model(renamed("qwen_image_distill_full_toy"), make_clip())
    return {"steps": opened.family.steps, "notice": opened.family.notice}


def qwen_refusals() -> dict[str, str]:
    """What does not fit; what the host cannot build is left out."""
    model, half, hidden = (unet(PATH.name) for _ in range(3))
    half.model.manual_cast_dtype = torch.float16
    del hidden.model.diffusion_model.transformer_blocks
    narrow = replace(CONFIG, context_in_dim=64)
    wide = unet(PATH.name, in_channels=68)
    timed, layered = unet(PATH.name), unet(PATH.name)
    timed.model.diffusion_model.default_ref_method = "index_timestep_zero"
    layered.model.diffusion_model.time_text_embed.use_additional_t_cond = True
    other = fresh_clip(Chatless)
    return {
        "clip": said(lambda: hosts.open_model(model, load.load_miniflux_clip())),
        "chatless": said(lambda: hosts.open_model(model, other)),
        "wide": said(lambda: family.Text(make_clip(), narrow).encode(["a cat"])),
        "long": said(lambda: make_text().encode(["a tiger " * 300])),
        "half": said(lambda: hosts.open_model(half, make_clip())),
        "hidden": said(lambda: hosts.sizes(hidden)),
        "inputs": said(lambda: hosts.sizes(wide)),
        "edit": said(lambda: hosts.sizes(renamed("qwen_image_edit_toy"))),
        "plus": said(lambda: hosts.sizes(renamed("qwen_image_edit_2509_toy"))),
        "timed": said(lambda: hosts.sizes(timed)),
        "layered": said(lambda: hosts.sizes(layered)),
    }


if __name__ == "__main__":
    inside.main(globals())
