"""Chroma inside the host's own process, by its own loaders; see inside.py.

    python chroma.py chroma HOST PACKAGE BASE OUT

Small are the width and the approximator. The depth is the published one, for which alone the host's
forward counts the approximator's rows; its loader would take the width for Chroma's own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import inside  # the host's process

# isort: split
import comfy.model_detection
import comfy.text_encoders.pixart_t5
import torch
from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy_extras import nodes_model_advanced
from eraseanything.erase_core.miniatures import miniflux
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.chroma import FAMILY
from eraseanything.erase_core.models.chroma.config import ChromaConfig
from eraseanything.erase_core.models.chroma.text import T5Text
from eraseanything.erase_core.models.chroma.tree import Chroma
from eraseanything.erase_core.models.flux1.names import file_keys
from eraseanything.erase_core.tensors import save_tensors
from eraseanything.nodes import drawing, hosts, judging, load
from eraseanything.nodes.hosts import chroma, flux1
from inside import (
    BASE,
    HELD,
    PROMPTS,
    SIGMA,
    host_nodes,
    latents,
    relative,
    said,
)
from small import Small, random_weights, unet
from transformers import PreTrainedTokenizerFast

CONFIG = ChromaConfig(
    context_in_dim=256, hidden_size=128, num_heads=1, approximator_width=32, approximator_layers=2
)
PATH = BASE / "models" / "diffusion_models" / "chroma.safetensors"
DETECT = comfy.model_detection.detect_unet_config
HELD_CLIP: list[Any] = []


def small(state: dict[str, Any], prefix: str, *more: Any, **options: Any) -> Any:
    """What the host sees in a file, and the sizes that it takes for granted of a Chroma."""
    found = DETECT(state, prefix, *more, **options)
    if found and found.get("image_model") == "chroma":
        found |= {
            "hidden_size": CONFIG.hidden_size, "num_heads": CONFIG.num_heads,
            "context_in_dim": CONFIG.context_in_dim, "out_dim": CONFIG.hidden_size,
            "hidden_dim": CONFIG.approximator_width, "n_layers": CONFIG.approximator_layers,
        }  # fmt: skip
    return found


comfy.model_detection.detect_unet_config = small


TREE = random_weights(Chroma(CONFIG))
save_tensors(PATH, file_keys(TREE.state_dict()))


def own_tokenizer(**_: Any) -> Any:
    """The host's T5 tokenizer for Chroma, with MiniFlux's words."""
    return sd1_clip.SDTokenizer(
        str(miniflux.FOLDER / "t5xxl_tokenizer"), tokenizer_class=PreTrainedTokenizerFast,
        embedding_key="t5xxl", has_start_token=False, pad_with_end=False, pad_to_max_length=False,
        max_length=99999999, min_length=1,
    )  # fmt: skip


def make_clip() -> Any:
    """The host's CLIP of type chroma with MiniFlux's T5."""
    if not HELD_CLIP:
        t5 = miniflux.load_text().t5.config
        sizes = {name: getattr(t5, name) for name in ("d_model", "d_ff", "num_heads")}
        sizes |= {"num_layers": t5.num_layers, "vocab_size": t5.vocab_size}
        options = {"t5xxl_model_config": sizes}
        tokenizer = partial(sd1_clip.SD1Tokenizer, clip_name="t5xxl", tokenizer=own_tokenizer)
        target = ClipTarget(tokenizer, comfy.text_encoders.pixart_t5.pixart_te())
        state = comfy.utils.load_torch_file(str(miniflux.FOLDER / "t5xxl.safetensors"))
        try:
            clip = comfy.sd.CLIP(target, state_dict=[state], model_options=options)
        except TypeError:  # ComfyUI in 2025
            clip = comfy.sd.CLIP(target, model_options=options)
            clip.load_sd(state)
        HELD_CLIP.append(clip)
    return HELD_CLIP[0]


def make_text() -> Any:
    return chroma.Text(make_clip(), CONFIG)


def standalone() -> Model:
    """The same transformer in the core, with the host's text encoder."""
    vae = miniflux.load(torch.float32).vae
    return Model(FAMILY, TREE, CONFIG, make_text(), vae, "chroma", "", (128, 128), CONFIG.shift)


def sampled(model: Any, x: Any, cond: Any) -> Any:
    """The velocity that the host itself computes, a picture at a time: (x - denoised) / sigma."""
    hosts.load(model)
    found = []
    with torch.inference_mode():
        for row, states in enumerate(cond.rows()):
            part, level = x[row : row + 1], SIGMA[row : row + 1]
            denoised = model.model.apply_model(
                part, level, c_crossattn=states[None], guidance=torch.zeros(1)
            )
            found.append(((part - denoised) / level).clone())
    return torch.cat(found)


def chroma_text() -> dict[str, float]:
    """T5 in the host against ours, which keeps one token of padding more."""
    own = miniflux.load_text()
    prompts = [*PROMPTS, "", "a (tiger:1.5)"]
    core = T5Text(own.t5, own.t5_tokenizer, 64).encode(prompts)
    found = make_text().encode(prompts)
    pairs = [(ours, theirs[:-1]) for ours, theirs in zip(found.rows(), core.rows(), strict=True)]
    mask = make_text().token_mask(PROMPTS[0], "tiger")
    ids = [token for token, _ in make_clip().tokenize(PROMPTS[0])["t5xxl"][0]]
    word = own.t5_tokenizer.decode([ids[row] for row in mask.nonzero().flatten().tolist()])
    return {
        "lengths": [len(ours) - len(theirs) for ours, theirs in pairs],
        "difference": max(relative(*pair) for pair in pairs),
        "word": word,
        "length": make_text().length,
        "negative": relative(found.negative.rows()[0], found.rows()[2]),
    }


SMALL = Small("chroma", PATH.name, 0.02, make_clip, standalone, latents, sampled)
chroma_velocity, chroma_gradients = SMALL.velocity, SMALL.gradients


def chroma_pictures() -> dict[str, float]:
    """The host's KSampler with true CFG against our own sampler, prompts of two lengths."""
    bundle = standalone()
    cond = bundle.text.encode([PROMPTS[0], PROMPTS[0], PROMPTS[1]])
    told: list[int] = []
    with torch.inference_mode():
        vae = host_nodes.VAELoader().load_vae("miniflux_vae.safetensors")[0]
        images = drawing.draw(
            unet(PATH.name), vae, cond, [5, 6, 7], (128, 96), 3, 4.0, on_step=told.append
        )
    options: dict[str, Any] = {"size": (128, 96), "steps": 3}
    ours = bundle.generate(cond, [5, 6, 7], guidance=4.0, **options).float() / 255
    once = bundle.generate(cond, [5, 6, 7], guidance=1.0, **options).float() / 255
    return {
        "mean": float((images - ours).abs().mean()),
        "unguided": float((once - ours).abs().mean()),
        "contrast": float(ours.std()),
        "steps": [told[0], told[-1]],
    }


def chroma_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL, and the report."""
    with torch.inference_mode():
        vae = host_nodes.VAELoader().load_vae("miniflux_vae.safetensors")[0]

    def report() -> dict[str, Any]:
        HELD["judges"] = (inside.small_vision(), load.load_miniflux_clip(), None)
        made = SMALL.graph(
            "EraseAnythingReport", concepts=["concept", 0], count=2, seed=1, steps=2, guidance=4.0,
            strength=1.0, vae=["load", 2], lora_file="chroma.safetensors",
            clip_vision=["judges", 0], clip_l=["judges", 1],
        )  # fmt: skip
        made["judges"] = {"class_type": "Given", "inputs": {"name": "judges"}}
        hosts.picture_size = lambda *_: (64, 64)
        return {"report": made}

    return SMALL.nodes(vae, 64, "0, 18", report)


def chroma_shift() -> list[Any]:
    """Of the schedule as it comes, and as the host's own template patches it."""
    model = unet(PATH.name)
    patch = nodes_model_advanced.ModelSamplingAuraFlow()
    method = getattr(patch, patch.FUNCTION)
    sigmas = []
    for other in (model, method(model, 1.0)[0], method(model, 3.0)[0]):
        shift = chroma.HOST.shift(other)
        opened = replace(standalone(), shift_mu=shift)
        theirs = comfy.samplers.calculate_sigmas(
            other.get_model_object("model_sampling"), "simple", 5
        )
        sigmas.append([shift, float((opened.sigmas(5) - theirs).abs().max())])
    return sigmas


def chroma_refusals() -> dict[str, str]:
    """What does not fit."""
    model, clip = unet(PATH.name), load.load_miniflux_clip()
    empty = {"disable_unet_model_creation": True}
    device = torch.device("cpu")

    def kind(name: str) -> Any:
        config = getattr(comfy.supported_models, name, None)
        if config is None:
            return None
        return comfy.model_patcher.ModelPatcher(config(dict(empty)).get_model({}), device, device)

    others = {name: kind(name) for name in ("ChromaRadiance", "LongCatImage")}
    half = unet(PATH.name)
    half.model.manual_cast_dtype = torch.float16
    wide = replace(CONFIG, context_in_dim=4096)
    found = {
        name: "" if other is None else said(partial(hosts.sizes, other))
        for name, other in others.items()
    }
    return found | {
        "clip": said(lambda: hosts.open_model(model, clip)),
        "flux": said(lambda: flux1.Text(make_clip(), miniflux.load().config)),
        "wide": said(lambda: chroma.Text(make_clip(), wide).encode(["a tiger"])),
        "long": said(lambda: make_text().encode(["a tiger " * 200])),
        "half": said(lambda: hosts.open_model(half, make_clip())),
        "judge": said(lambda: judging.clip_words(make_clip(), PROMPTS)),
        "load_flux": said(lambda: load.load_transformer(str(PATH), {})),
    }


if __name__ == "__main__":
    inside.main(globals())
