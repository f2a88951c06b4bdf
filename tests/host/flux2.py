"""FLUX.2 klein inside the host's own process, by its own loaders; see inside.py.

    python flux2.py flux2 HOST PACKAGE BASE OUT

Small are the widths, the blocks and the text encoder; its tokenizer is the host's. The autoencoder
is a stand-in. A host without FLUX.2 gives one result, ``lacks``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import inside  # the host's process

# isort: split
import comfy.sd
import comfy.text_encoders.flux
import comfy.text_encoders.z_image
import torch
from comfy.supported_models_base import ClipTarget
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.flux1.names import file_keys
from eraseanything.erase_core.models.flux2 import FAMILY
from eraseanything.erase_core.models.flux2.config import Flux2Config
from eraseanything.erase_core.models.flux2.text import QwenText, load_qwen
from eraseanything.erase_core.models.flux2.tree import Flux2
from eraseanything.erase_core.models.tokens import read_tokenizer
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import hosts, load
from eraseanything.nodes.hosts import flux2
from inside import (
    BASE,
    HOST,
    PROMPTS,
    SIGMA,
    host_nodes,
    relative,
    said,
)
from small import Small, random_weights, unet

QWEN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 28,
    "num_attention_heads": 1, "num_key_value_heads": 1,
}  # fmt: skip
CONFIG = Flux2Config(
    context_in_dim=96, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=2
)
PATH = BASE / "models" / "diffusion_models" / "flux-2-klein-base-toy.safetensors"
ENCODER = BASE / "models" / "text_encoders" / "qwen_toy.safetensors"
HELD_CLIP: list[Any] = []


TREE = random_weights(Flux2(CONFIG))
save_tensors(PATH, file_keys(TREE.state_dict()))


class ToyVae:
    """Pictures of 16 px a latent, by one random matrix and its inverse."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.matrix = torch.randn(3 * 256, 128, generator=generator) / 128**0.5

    def decode(self, latents: Any) -> Any:
        found = torch.einsum("oc,nchw->nohw", self.matrix, latents)
        return torch.nn.functional.pixel_shuffle(found, 16).sigmoid().movedim(1, -1)

    def encode(self, images: Any) -> Any:
        wide = torch.nn.functional.pixel_unshuffle(images.movedim(-1, 1), 16)
        return torch.einsum("co,nohw->nchw", torch.linalg.pinv(self.matrix), wide)


def make_clip() -> Any:
    """The host's CLIP of klein: a small Qwen3 of random weights, which are written to a file."""
    if not HELD_CLIP:
        target = ClipTarget(
            comfy.text_encoders.flux.KleinTokenizer, comfy.text_encoders.flux.klein_te()
        )
        options = {"qwen3_4b_model_config": QWEN, "dtype": torch.float32}
        clip = comfy.sd.CLIP(target, model_options=options)
        generator = torch.Generator().manual_seed(4)
        inner = clip.cond_stage_model.qwen3_4b.transformer
        for name, parameter in inner.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise)
        save_tensors(ENCODER, inner.state_dict())
        HELD_CLIP.append(clip)
    return HELD_CLIP[0]


def make_text() -> Any:
    return flux2.Text(make_clip(), CONFIG)


def standalone() -> Model:
    """The same transformer in the core, with the host's text encoder."""
    return Model(FAMILY, TREE, CONFIG, make_text(), None, "klein", "", (64, 64), CONFIG.shift)


def latents() -> Any:
    return torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(0))


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes: (x - denoised) / sigma."""
    hosts.load(model)
    with torch.inference_mode():
        denoised = model.model.apply_model(
            x, SIGMA, c_crossattn=cond.context, guidance=torch.full((len(x),), 3.5)
        )
        return ((x - denoised) / SIGMA[:, None, None, None]).clone()


def flux2_text() -> dict[str, Any]:
    """Qwen3 in the host against ours, from the same file, with the host's own tokenizer."""
    prompts = [*PROMPTS, "", "a (tiger:1.5)"]
    found = make_text().encode(prompts)
    tokenizer = read_tokenizer(HOST / "comfy" / "text_encoders" / "qwen25_tokenizer")
    core = QwenText(load_qwen(ENCODER), tokenizer)
    ours = core.encode(prompts)
    mask = make_text().token_mask(PROMPTS[0], "tiger")
    ids = [token for token, _ in make_clip().tokenize(PROMPTS[0])["qwen3_4b"][0]]
    return {
        "shape": list(found.context.shape),
        "difference": relative(ours.context, found.context),
        "spread": float(found.context.std()),
        "negative": relative(found.negative.context[0], found.context[2]),
        "word": tokenizer.decode([ids[row] for row in mask.nonzero().flatten().tolist()]),
        "same_mask": bool((core.token_mask(PROMPTS[0], "tiger") == mask).all()),
    }


SMALL = Small("flux2", PATH.name, 0.04, make_clip, standalone, latents, sampled)
flux2_velocity, flux2_gradients = SMALL.velocity, SMALL.gradients
flux2_attention = SMALL.attention


def flux2_pictures() -> dict[str, Any]:
    return SMALL.pictures(ToyVae(), 3)


def flux2_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL."""
    return SMALL.nodes(ToyVae(), 64, "0, 1")


def flux2_shift() -> list[Any]:
    """Of the schedule as it comes."""
    model = unet(PATH.name)
    opened = replace(standalone(), shift_mu=flux2.shift(model))
    theirs = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 5)
    return [opened.shift_mu, float((opened.sigmas(5) - theirs).abs().max())]


def flux2_distilled() -> dict[str, Any]:
    """The same file under the distilled model's name."""
    path = PATH.with_name("flux-2-klein-toy.safetensors")
    path.write_bytes(PATH.read_bytes())
    with torch.inference_mode():
        model = host_nodes.UNETLoader().load_unet(path.name, "default")[0]
    opened = hosts.open_model(model, make_clip())
    return {"steps": opened.family.steps, "notice": opened.family.notice}


def flux2_refusals() -> dict[str, str]:
    """What does not fit."""
    model = unet(PATH.name)
    half = unet(PATH.name)
    half.model.manual_cast_dtype = torch.float16
    wide = replace(CONFIG, context_in_dim=7680)
    zimage = ClipTarget(
        comfy.text_encoders.z_image.ZImageTokenizer, comfy.text_encoders.flux.klein_te()
    )
    options = {"qwen3_4b_model_config": QWEN, "dtype": torch.float32}
    other = comfy.sd.CLIP(zimage, model_options=options)
    dev = Flux2(replace(CONFIG, guidance_embed=True))
    save_tensors(PATH.with_name("dev.safetensors"), file_keys(dev.state_dict()))
    with torch.inference_mode():
        big = host_nodes.UNETLoader().load_unet("dev.safetensors", "default")[0]
    return {
        "clip": said(lambda: hosts.open_model(model, load.load_miniflux_clip())),
        "zimage": said(lambda: hosts.open_model(model, other)),
        "wide": said(lambda: flux2.Text(make_clip(), wide).encode(["a tiger"])),
        "long": said(lambda: make_text().encode(["a tiger " * 300])),
        "half": said(lambda: hosts.open_model(half, make_clip())),
        "dev": said(partial(hosts.sizes, big)),
        "load_flux": said(lambda: load.load_transformer(str(PATH), {})),
    }


if __name__ == "__main__":
    inside.main(globals())
