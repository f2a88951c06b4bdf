"""Chroma inside the host's own process, by its own loaders; see inside.py.

    python chroma.py chroma HOST PACKAGE BASE OUT

Small are the width and the approximator. The depth is the published one, for which alone the host's
forward counts the approximator's rows; its loader would take the width for Chroma's own.
"""

from __future__ import annotations

import json
import logging
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
from eraseanything.erase_core.erasers.edit import WeightEdit
from eraseanything.erase_core.erasers.lora import EraserLora
from eraseanything.erase_core.miniatures import miniflux
from eraseanything.erase_core.models.base import Model
from eraseanything.erase_core.models.chroma import FAMILY
from eraseanything.erase_core.models.chroma.config import ChromaConfig
from eraseanything.erase_core.models.chroma.text import T5Text
from eraseanything.erase_core.models.chroma.tree import Chroma
from eraseanything.erase_core.models.flux1.names import file_keys
from eraseanything.erase_core.tensors import read_tensors, save_tensors
from eraseanything.nodes import drawing, hosts, judging, load
from eraseanything.nodes.hosts import chroma, flux1
from inside import (
    BASE,
    HELD,
    OUT,
    PROMPTS,
    SIGMA,
    digest,
    execute,
    host_nodes,
    latents,
    relative,
    said,
)
from transformers import PreTrainedTokenizerFast

CONFIG = ChromaConfig(
    context_in_dim=256, hidden_size=128, num_heads=1, approximator_width=32, approximator_layers=2
)
PATH = BASE / "models" / "diffusion_models" / "chroma.safetensors"
LORAS = BASE / "models" / "loras"
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


def random_tree() -> Chroma:
    """Of float32, with weights that keep their inputs' size."""
    torch.manual_seed(0)
    tree = Chroma(CONFIG).requires_grad_(False)
    for parameter in tree.parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
    return tree


TREE = random_tree()
save_tensors(PATH, file_keys(TREE.state_dict()))


def unet() -> Any:
    """A MODEL of UNETLoader's, as the executor has it made."""
    with torch.inference_mode():
        return host_nodes.UNETLoader().load_unet(PATH.name, "default")[0]


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


def random_lora() -> Any:
    lora = EraserLora.create(FAMILY.slots(CONFIG, FAMILY.roles), 4, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return lora


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


def chroma_velocity() -> dict[str, Any]:
    """Host + our LoRA file in the host's loader, against our forward; our forward over its layers;
    what is not loaded."""
    model, bundle, lora = unet(), standalone(), random_lora()
    x, cond = latents(), bundle.text.encode(PROMPTS)
    lora.save(LORAS / "chroma.safetensors")
    edit = WeightEdit.zeros(TREE, ["txt_in", "double_blocks.1.txt_attn.qkv"])
    for parameter in edit.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    edit.save(LORAS / "chroma_edit.safetensors")
    with torch.no_grad():
        plain, changed, edited = (
            bundle.velocity(x, SIGMA, cond, None, e) for e in (None, lora, edit)
        )
    warned: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    with torch.inference_mode():
        loader = host_nodes.LoraLoaderModelOnly()
        with_lora = loader.load_lora_model_only(model, "chroma.safetensors", 1.0)[0]
        with_edit = loader.load_lora_model_only(model, "chroma_edit.safetensors", 1.0)[0]
    logging.getLogger().removeHandler(handler)
    found = {
        "plain": relative(sampled(model, x, cond), plain),
        "lora": relative(sampled(with_lora, x, cond), changed),
        "edit": relative(sampled(with_edit, x, cond), edited),
        "change": relative(changed, plain),
        "edit_change": relative(edited, plain),
        "not_loaded": [line for line in warned if "not loaded" in line],
    }
    hosts.load(with_lora)
    opened = hosts.open_model(with_lora, make_clip())
    with torch.no_grad():  # a MODEL that carries a LoRA, seen through the trainer's tree
        found["carried"] = relative(opened.velocity(x, SIGMA, cond), changed)
    return found | {"family": opened.family.name, "name": opened.name}


def gradients(model: Model, cond: Any) -> Any:
    lora = random_lora()
    out = model.velocity(latents(), SIGMA, cond, 4.0, lora)
    out.square().mean().backward(inputs=lora.parameters())
    return torch.cat([p.grad.flatten() for p in lora.parameters()])


def chroma_gradients() -> float:
    """Through UNETLoader's inference tensors, both passes."""
    bundle, model = standalone(), unet()
    cond = bundle.text.encode(PROMPTS)
    wanted = gradients(bundle, cond)
    hosts.load(model)
    with torch.inference_mode(), hosts.training():
        return relative(gradients(hosts.open_model(model, make_clip()), cond), wanted)


def chroma_pictures() -> dict[str, float]:
    """The host's KSampler with true CFG against our own sampler, prompts of two lengths."""
    bundle = standalone()
    cond = bundle.text.encode([PROMPTS[0], PROMPTS[0], PROMPTS[1]])
    told: list[int] = []
    with torch.inference_mode():
        vae = host_nodes.VAELoader().load_vae("miniflux_vae.safetensors")[0]
        images = drawing.draw(unet(), vae, cond, [5, 6, 7], (128, 96), 3, 4.0, on_step=told.append)
    options: dict[str, Any] = {"size": (128, 96), "steps": 3}
    ours = bundle.generate(cond, [5, 6, 7], guidance=4.0, **options).float() / 255
    once = bundle.generate(cond, [5, 6, 7], guidance=1.0, **options).float() / 255
    return {
        "mean": float((images - ours).abs().mean()),
        "unguided": float((once - ours).abs().mean()),
        "contrast": float(ours.std()),
        "steps": [told[0], told[-1]],
    }


def graph(kind: str, **inputs: Any) -> Any:
    """A graph that trains with the MODEL, CLIP and VAE of ``HELD``, or one of another node."""
    made = json.loads((OUT.parent / "train.json").read_text())
    made["load"] = {"class_type": "Given", "inputs": {"name": "chroma"}}
    if kind != "EraseAnythingTrain":
        made = {"load": made["load"], "concept": made["concept"]}
        made["node"] = {"class_type": kind, "inputs": {"model": ["load", 0], "clip": ["load", 1]}}
    made["train" if kind == "EraseAnythingTrain" else "node"]["inputs"] |= inputs
    return made


def chroma_nodes() -> dict[str, Any]:
    """Every node that opens a MODEL, run by the host's executor; the MODEL's weights before and
    after."""
    inside.know_our_nodes()
    with torch.inference_mode():
        vae = host_nodes.VAELoader().load_vae("miniflux_vae.safetensors")[0]
    model = unet()
    HELD["chroma"] = (model, make_clip(), vae)
    before, outcomes = digest(model), {}
    saved = {"filename_prefix": "chroma_%concept%", "concepts": ["concept", 0]}
    drawn = {"width": 64, "height": 64, "steps": 2, "seed": 1, "guidance": 4.0, "vae": ["load", 2]}
    wanted = {
        "train": graph("EraseAnythingTrain", **saved, preview_every=1, vae=["load", 2]),
        "instant": graph(
            "EraseAnythingInstant", **saved | {"filename_prefix": "second"}, method="uce",
            strength=1.0, rank=0, prompts=3, seed=0, folder="models/loras",
        ),
        "attention": graph(
            "EraseAnythingAttentionMap", **drawn, prompt=PROMPTS[0], words="tiger", blocks="0, 18",
            at_steps="",
        ),
        "preview": graph(
            "EraseAnythingPreview", **drawn, prompts="\n".join(PROMPTS), strengths="0 1", seeds=1,
            blur=False, lora_file="chroma.safetensors",
        ),
    }  # fmt: skip
    for name, made in wanted.items():
        runner = execute(made)
        outcomes[name] = inside.failure(runner) or runner.success
    found = {
        "outcomes": outcomes,
        "untouched": digest(model) == before,
        "trained": trained(),
    }
    instant = next(iter(LORAS.glob("second_*.safetensors")), None)
    return found | {"edited": sorted(read_tensors(instant)[0]) if instant else []}


def trained() -> dict[str, Any]:
    """What the file of the trained eraser holds."""
    (file,) = LORAS.glob("chroma_tiger*.safetensors")
    tensors, metadata = read_tensors(file)
    return {
        "keys": len(tensors),
        "first": min(tensors),
        "base": metadata["ss_base_model_version"],
        "finite": all(bool(t.isfinite().all()) for t in tensors.values()),
    }


def chroma_shift() -> list[Any]:
    """Of the schedule as it comes, and as the host's own template patches it."""
    model = unet()
    patch = nodes_model_advanced.ModelSamplingAuraFlow()
    method = getattr(patch, patch.FUNCTION)
    sigmas = []
    for other in (model, method(model, 1.0)[0], method(model, 3.0)[0]):
        shift = chroma.shift(other)
        opened = replace(standalone(), shift_mu=shift)
        theirs = comfy.samplers.calculate_sigmas(
            other.get_model_object("model_sampling"), "simple", 5
        )
        sigmas.append([shift, float((opened.sigmas(5) - theirs).abs().max())])
    return sigmas


def chroma_refusals() -> dict[str, str]:
    """What does not fit."""
    model, clip = unet(), load.load_miniflux_clip()
    empty = {"disable_unet_model_creation": True}
    device = torch.device("cpu")

    def kind(name: str) -> Any:
        config = getattr(comfy.supported_models, name, None)
        if config is None:
            return None
        return comfy.model_patcher.ModelPatcher(config(dict(empty)).get_model({}), device, device)

    others = {name: kind(name) for name in ("ChromaRadiance", "LongCatImage")}
    half = unet()
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
