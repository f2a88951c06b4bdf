"""Z-Image inside the host's own process; see inside.py.

    python zimage.py zimage HOST PACKAGE BASE OUT

Small are the widths, the blocks and the text encoder; its tokenizer is the host's. The host's
loader knows Z-Image by its width, so that its classes are called here. The autoencoder is a
stand-in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import inside  # the host's process

# isort: split
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.flux
import comfy.text_encoders.z_image
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.flux2.text import load_qwen
from eraseanything.erase_core.models.tokens import read_tokenizer
from eraseanything.erase_core.models.zimage import FAMILY
from eraseanything.erase_core.models.zimage.config import ZImageConfig
from eraseanything.erase_core.models.zimage.text import UNUSED, ChatText
from eraseanything.erase_core.models.zimage.tree import ZImage
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import hosts, load
from eraseanything.nodes.hosts import BASE as ATTACHED
from eraseanything.nodes.hosts import zimage
from inside import BASE, HOST, PROMPTS, SIGMA, relative, said
from small import Small, ToyVae, random_weights

QWEN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
    "num_attention_heads": 1, "num_key_value_heads": 1,
}  # fmt: skip
CONFIG = ZImageConfig(
    context_in_dim=32, hidden_size=384, num_heads=3, depth=2, refiners=1, mlp_width=1024,
    time_width=384,
)  # fmt: skip
SIZES: dict[str, Any] = {
    "image_model": "lumina2", "in_channels": 16, "dim": 384, "n_layers": 2,
    "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "ffn_dim_multiplier": 8 / 3,
    "qk_norm": True, "cap_feat_dim": 32, "axes_dims": [32, 48, 48], "rope_theta": 256.0,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
PATH = BASE / "models" / "diffusion_models" / "z_image_toy.safetensors"
ENCODER = BASE / "models" / "text_encoders" / "qwen_toy.safetensors"
HELD_CLIP: list[Any] = []


TREE = random_weights(ZImage(CONFIG))
save_tensors(PATH, TREE.state_dict())


def unet(file: str) -> Any:
    """A MODEL of a file, in inference tensors as the executor has it."""
    path = PATH.with_name(file)
    with torch.inference_mode():
        state = comfy.utils.load_torch_file(str(path))
        config = comfy.supported_models.ZImage(dict(SIZES))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        model.load_model_weights(state, "")
        device = comfy.model_management.get_torch_device()
        patcher = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    patcher.set_attachments(ATTACHED, str(path))
    return patcher


def make_clip() -> Any:
    """The host's CLIP of Z-Image: a small Qwen3 of random weights, which are written to a file."""
    if not HELD_CLIP:
        clip = comfy.sd.CLIP(target(), model_options=options())
        generator = torch.Generator().manual_seed(4)
        inner = clip.cond_stage_model.qwen3_4b.transformer
        for name, parameter in inner.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise)
        save_tensors(ENCODER, inner.state_dict())
        HELD_CLIP.append(clip)
    return HELD_CLIP[0]


def target() -> Any:
    return ClipTarget(comfy.text_encoders.z_image.ZImageTokenizer, comfy.text_encoders.z_image.te())


def options() -> dict[str, Any]:
    return {"qwen3_4b_model_config": QWEN, "dtype": torch.float32}


def make_text() -> Any:
    return zimage.Text(make_clip(), CONFIG)


def standalone() -> Model:
    """The same transformer in the core, with the host's text encoder."""
    return Model(FAMILY, TREE, CONFIG, make_text(), None, "z", "", (64, 64), CONFIG.shift)


def latents() -> Any:
    return torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes, prompt by prompt: (x - denoised) / sigma."""
    hosts.load(model)
    found = []
    with torch.inference_mode():
        for row, states in enumerate(cond.rows()):
            part, sigma = x[row : row + 1], SIGMA[row : row + 1]
            denoised = model.model.apply_model(
                part, sigma, c_crossattn=states[None], num_tokens=len(states)
            )
            found.append(((part - denoised) / sigma).clone())
    return torch.cat(found)


def zimage_text() -> dict[str, Any]:
    """Qwen3 in the host against ours, from the same file, with the host's own tokenizer."""
    prompts = [*PROMPTS, "", "a (tiger:1.5)", "a tiger in the snow " * 6]
    found = make_text().encode(prompts)
    tokenizer = read_tokenizer(HOST / "comfy" / "text_encoders" / "qwen25_tokenizer")
    core = ChatText(load_qwen(ENCODER, UNUSED), tokenizer)
    ours = core.encode(prompts)
    mask = make_text().token_mask(PROMPTS[0], "tiger")
    ids = [token for token, _ in make_clip().tokenize(PROMPTS[0])["qwen3_4b"][0]]
    return {
        "shape": list(found.context.shape),
        "difference": relative(ours.context, found.context),
        "same_length": bool((ours.mask == found.mask).all()),
        "spread": float(found.context[found.mask].std()),
        "negative": relative(found.negative.rows()[0], found.rows()[2]),
        "word": tokenizer.decode([ids[row] for row in mask.nonzero().flatten().tolist()]),
        "same_mask": bool((core.token_mask(PROMPTS[0], "tiger") == mask).all()),
    }


SMALL = Small(
    "zimage",
    PATH.name,
    0.04,
    make_clip,
    standalone,
    latents,
    sampled,
    unet,
    ("cap_embedder.1", "context_refiner.0.attention.qkv"),
)
zimage_velocity, zimage_gradients = SMALL.velocity, SMALL.gradients
zimage_attention = SMALL.attention


def zimage_pictures() -> dict[str, Any]:
    return SMALL.pictures(ToyVae(), 4)


def zimage_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL."""
    return SMALL.nodes(ToyVae(), 64, "0, 1")


def zimage_shift() -> list[Any]:
    """Of the schedule as it comes."""
    model = unet(PATH.name)
    opened = replace(standalone(), shift_mu=zimage.HOST.shift(model))
    theirs = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    return [opened.shift_mu, float((opened.sigmas(8) - theirs).abs().max())]


def zimage_distilled() -> dict[str, Any]:
    """The same file under the Turbo model's name."""
    path = PATH.with_name("z_image_turbo_toy.safetensors")
    path.write_bytes(PATH.read_bytes())
    opened = hosts.open_model(unet(path.name), make_clip())
    return {"steps": opened.family.steps, "notice": opened.family.notice}


def zimage_refusals() -> dict[str, str]:
    """What does not fit."""
    model, half = unet(PATH.name), unet(PATH.name)
    half.model.manual_cast_dtype = torch.float16
    klein = ClipTarget(comfy.text_encoders.flux.KleinTokenizer, comfy.text_encoders.z_image.te())
    other = comfy.sd.CLIP(klein, model_options=options())
    edits, lumina, hidden = unet(PATH.name), unet(PATH.name), unet(PATH.name)
    edits.model.diffusion_model.siglip_embedder = torch.nn.Linear(2, 2)
    for name in zimage.PADS:
        delattr(lumina.model.diffusion_model, name)
    del hidden.model.diffusion_model.layers
    return {
        "clip": said(lambda: hosts.open_model(model, load.load_miniflux_clip())),
        "klein": said(lambda: hosts.open_model(model, other)),
        "wide": said(
            lambda: zimage.Text(make_clip(), replace(CONFIG, context_in_dim=64)).encode(["a cat"])
        ),
        "long": said(lambda: make_text().encode(["a tiger " * 300])),
        "half": said(lambda: hosts.open_model(half, make_clip())),
        "edits": said(lambda: hosts.sizes(edits)),
        "lumina": said(lambda: hosts.sizes(lumina)),
        "hidden": said(lambda: hosts.sizes(hidden)),
    }


if __name__ == "__main__":
    inside.main(globals())
