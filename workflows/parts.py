"""What the workflows are made of: models, and groups of nodes that several of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from files import Node, Workflow
from layout import Frame, Row

MINIFLUX = "MiniFlux (bundled)"
Output = tuple[Node, int]
Parts = Mapping[str, Output]  # of what loads a model: model, clip, vae


@dataclass(frozen=True)
class Base:
    """What differs between the models."""

    name: str
    files: dict[str, str]
    side: int  # pixels of a picture
    batch: int
    source: str  # of a concept's words
    pictures: dict[str, Any]  # inputs of Erasure Preview
    note: str
    preset: str = "default"
    steps: int = 20
    sampler: str = "euler"
    cfg: float = 1.0  # above 1 pictures are drawn away from an empty prompt
    latent: str = "EmptySD3LatentImage"
    clip_type: str = ""  # of the host's own loaders; "" for Load Flux
    shift: float = 0.0  # of the schedule, where the model's own does not suit
    urls: tuple[str, ...] = ()  # where its files are, in their order

    def fetched(self) -> list[dict[str, str]]:
        """What the front end offers to fetch."""
        named = zip(self.files.items(), self.urls, strict=True) if self.urls else ()
        return [
            {"name": name, "url": url, "directory": FOLDERS[given]} for (given, name), url in named
        ]


_HUB = "https://huggingface.co/Comfy-Org"
_Z = f"{_HUB}/z_image_turbo/resolve/main/split_files"
_AE = f"{_Z}/vae/ae.safetensors"
_TEXT = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main"
MINI = Base(
    "MiniFlux",
    dict.fromkeys(("transformer", "clip_l", "t5", "vae"), MINIFLUX),
    128,
    4,
    "MiniFlux",
    {"seeds": 3},
    "MiniFlux comes with EraseAnything: nothing to download, minutes on a CPU.",
    preset="fast",
)
DEV = Base(
    "Flux.1-dev",
    {
        "transformer": "flux1-dev.safetensors",
        "clip_l": "clip_l.safetensors",
        "t5": "t5xxl_fp16.safetensors",
        "vae": "ae.safetensors",
    },
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 20},
    "Put `flux1-dev.safetensors` into `models/diffusion_models`, `clip_l.safetensors` and "
    "`t5xxl_fp16.safetensors` into `models/text_encoders`, `ae.safetensors` into `models/vae`, or "
    "choose your own files (bf16, fp8, scaled fp8) in **Load Flux**. A GPU is needed.",
    urls=(
        f"{_HUB}/flux1-dev/resolve/main/flux1-dev.safetensors",
        f"{_TEXT}/clip_l.safetensors",
        f"{_TEXT}/t5xxl_fp16.safetensors",
        _AE,
    ),
)
ZIMAGE = Base(
    "Z-Image-Turbo",
    {
        "unet_name": "z_image_turbo_bf16.safetensors",
        "clip_name": "qwen_3_4b.safetensors",
        "vae_name": "ae.safetensors",
    },
    1024,
    1,
    "auto",
    {},
    "Put `z_image_turbo_bf16.safetensors` into `models/diffusion_models`, `qwen_3_4b.safetensors` "
    "into `models/text_encoders`, `ae.safetensors` into `models/vae`. A GPU is needed.",
    steps=8,
    sampler="res_multistep",
    clip_type="lumina2",
    urls=(
        f"{_Z}/diffusion_models/z_image_turbo_bf16.safetensors",
        f"{_Z}/text_encoders/qwen_3_4b.safetensors",
        _AE,
    ),
)
ZIMAGE_BASE = Base(
    "Z-Image",
    {
        "unet_name": "z_image_bf16.safetensors",
        "clip_name": "qwen_3_4b.safetensors",
        "vae_name": "ae.safetensors",
    },
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 25, "guidance": 4.0},
    "Put `z_image_bf16.safetensors` into `models/diffusion_models`, `qwen_3_4b.safetensors` into "
    "`models/text_encoders`, `ae.safetensors` into `models/vae`. A GPU with 16 GB is needed. Train "
    "on this **base** model; its eraser loads on Z-Image-Turbo, too (8 steps, cfg 1).",
    steps=25,
    sampler="res_multistep",
    cfg=4.0,
    clip_type="lumina2",
    urls=(
        f"{_HUB}/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
        f"{_Z}/text_encoders/qwen_3_4b.safetensors",
        _AE,
    ),
)
KLEIN = Base(
    "FLUX.2-klein-4B",
    {
        "unet_name": "flux-2-klein-base-4b.safetensors",
        "clip_name": "qwen_3_4b.safetensors",
        "vae_name": "flux2-vae.safetensors",
    },
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 20, "guidance": 4.0},
    "Put `flux-2-klein-base-4b.safetensors` into `models/diffusion_models`, "
    "`qwen_3_4b.safetensors` into `models/text_encoders`, `flux2-vae.safetensors` into "
    "`models/vae`. A GPU with 16 GB is needed. Train on the **base** model; its eraser loads on "
    "the distilled `flux-2-klein-4b`, too (4 steps, cfg 1).",
    cfg=4.0,
    latent="EmptyFlux2LatentImage",
    clip_type="flux2",
    urls=(
        f"{_HUB}/flux2-klein/resolve/main/split_files/diffusion_models/"
        "flux-2-klein-base-4b.safetensors",
        f"{_HUB}/flux2-klein/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
        f"{_HUB}/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
    ),
)
_SD3 = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
SD3 = Base(
    "SD3.5-medium",
    {"ckpt_name": _SD3},
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 28, "guidance": 4.0},
    f"Put `{_SD3}` into `models/checkpoints`: it brings the text encoders and the VAE. A GPU with "
    "12 GB is needed. Any Stable Diffusion 3.5 goes, too: **3.5 large** with its three encoders "
    "(TripleCLIPLoader). Train large, and its eraser loads on large turbo (4 steps, cfg 1).",
    steps=28,
    cfg=4.0,
    clip_type="sd3",
    urls=(f"{_HUB}/stable-diffusion-3.5-fp8/resolve/main/{_SD3}",),
)
_Q = f"{_HUB}/Qwen-Image_ComfyUI/resolve/main/split_files"
QWEN_IMAGE = Base(
    "Qwen-Image",
    {
        "unet_name": "qwen_image_fp8_e4m3fn.safetensors",
        "clip_name": "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "vae_name": "qwen_image_vae.safetensors",
    },
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 20, "guidance": 4.0},
    "Put `qwen_image_fp8_e4m3fn.safetensors` into `models/diffusion_models`, "
    "`qwen_2.5_vl_7b_fp8_scaled.safetensors` into `models/text_encoders`, "
    "`qwen_image_vae.safetensors` into `models/vae`. A GPU with 24 GB and as much RAM are needed. "
    "Train on this **base** model; its eraser loads on distilled ones, too (8 steps, cfg 1).",
    cfg=4.0,
    clip_type="qwen_image",
    shift=3.1,
    urls=(
        f"{_Q}/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
        f"{_Q}/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
        f"{_Q}/vae/qwen_image_vae.safetensors",
    ),
)
CHROMA = Base(
    "Chroma1-HD",
    {
        "unet_name": "Chroma1-HD.safetensors",
        "clip_name": "t5xxl_fp16.safetensors",
        "vae_name": "ae.safetensors",
    },
    1024,
    1,
    "auto",
    {"seeds": 1, "width": 512, "height": 512, "steps": 26, "guidance": 4.0},
    "Put `Chroma1-HD.safetensors` into `models/diffusion_models`, `t5xxl_fp16.safetensors` into "
    "`models/text_encoders`, `ae.safetensors` into `models/vae`. A GPU is needed.",
    steps=26,
    cfg=4.0,
    clip_type="chroma",
    shift=1.0,
    urls=(
        "https://huggingface.co/lodestones/Chroma1-HD/resolve/main/Chroma1-HD.safetensors",
        f"{_TEXT}/t5xxl_fp16.safetensors",
        _AE,
    ),
)
HALF = {
    "MiniFlux": ("a tiger on a green background", "a car on a yellow background"),
    "Flux.1-dev": (
        "a photo of a tiger walking through tall grass",
        "a photo of a car parked in tall grass",
    ),
}
HALF |= dict.fromkeys(
    ("Z-Image-Turbo", "Z-Image", "Chroma1-HD", "FLUX.2-klein-4B", "SD3.5-medium", "Qwen-Image"),
    HALF["Flux.1-dev"],
)
PARTS = ("model", "clip", "vae")
# The folders of models, by the inputs that name a file.
FOLDERS = {
    "transformer": "diffusion_models",
    "clip_l": "text_encoders",
    "t5": "text_encoders",
    "vae": "vae",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "vae_name": "vae",
    "ckpt_name": "checkpoints",
}


def load(flow: Workflow, base: Base) -> tuple[Parts, Frame]:
    """What loads a model, and its frame."""
    if not base.clip_type:
        made = [flow.add("EraseAnythingLoadFlux", 310, **base.files)]
    elif "ckpt_name" in base.files:
        made = [flow.add("CheckpointLoaderSimple", 310, **base.files)]
    else:
        return _load_parts(flow, base)
    made[0].files = base.fetched()
    return {part: made[0][part] for part in PARTS}, flow.frame("1 · The model", "load", *made)


def _load_parts(flow: Workflow, base: Base) -> tuple[Parts, Frame]:
    """A base whose parts the host's own loaders load."""
    unet, clip, vae = base.files.items()
    tree = flow.add("UNETLoader", 310, **dict([unet]))
    text = flow.add("CLIPLoader", 310, **dict([clip]), type=base.clip_type)
    made = [tree, text, flow.add("VAELoader", 310, **dict([vae]))]
    for node, file in zip(made, base.fetched(), strict=True):
        node.files = [file]
    parts = {"model": tree["model"], "clip": text["clip"], "vae": made[2]["vae"]}
    if base.shift:
        shift = {"model": tree["model"], "shift": base.shift}
        made.insert(1, flow.add("ModelSamplingAuraFlow", 310, **shift))
        parts["model"] = made[1]["model"]
    return parts, flow.frame("1 · The model", "load", *made)


def concept(flow: Workflow, base: Base, name: str, **more: Any) -> Node:
    inputs: dict[str, Any] = {"concept": name, "source": base.source} | more
    return flow.add("EraseAnythingConceptSet", 350, **inputs)


def train(flow: Workflow, model: Parts, concepts: Node, **more: Any) -> Node:
    return flow.add("EraseAnythingTrain", 400, **model, concepts=concepts["concepts"], **more)


def instant(flow: Workflow, model: Parts, concepts: Node, **more: Any) -> Node:
    given = {"model": model["model"], "clip": model["clip"], "concepts": concepts["concepts"]}
    return flow.add("EraseAnythingInstant", 310, **given, **more)


def guard(flow: Workflow, model: Parts, concepts: Node, title: str = "", **more: Any) -> Node:
    given = {"model": model["model"], "clip": model["clip"], "concepts": concepts["concepts"]}
    return flow.add("EraseAnythingGuard", 310, title, **given, **more)


@dataclass(frozen=True)
class Wanted:
    """What is to be drawn."""

    nodes: tuple[Node, ...]
    positive: Output
    negative: Output
    latent: Output


def wanted(flow: Workflow, base: Base, model: Parts, prompt: str, negative: str = "") -> Wanted:
    """The prompt, and a negative one where the sampler reads it or ``negative`` is given."""
    made = [flow.add("CLIPTextEncode", 310, "Prompt", clip=model["clip"], text=prompt)]
    if base.cfg > 1 or negative:
        title = "Negative: only NAG reads it" if negative else "Negative prompt"
        made.append(flow.add("CLIPTextEncode", 310, title, clip=model["clip"], text=negative))
    against = made[-1]["conditioning"]  # the prompt itself where nobody reads it, at cfg 1
    sides = {"width": base.side, "height": base.side, "batch_size": base.batch}
    made.append(flow.add(base.latent, 310, **sides))
    return Wanted(tuple(made), made[0]["conditioning"], against, made[-1]["latent"])


def draw(
    flow: Workflow,
    base: Base,
    model: Parts,
    asked: Wanted,
    label: str,
    source: Output,
    small: bool = False,
) -> Row:
    """ComfyUI's own nodes: one MODEL draws what is asked for, with the same seed as the others."""
    sample = flow.add(
        "KSampler",
        225 if small else 240,
        f"KSampler: {label}",
        model=source,
        positive=asked.positive,
        negative=asked.negative,
        latent_image=asked.latent,
        seed=1,
        steps=base.steps,
        cfg=base.cfg,
        sampler_name=base.sampler,
        scheduler="simple",
    )
    decode = flow.add("VAEDecode", 225, samples=sample["latent"], vae=model["vae"])
    sample.collapsed = decode.collapsed = small
    shown = flow.add(
        "PreviewImage", 225 if small else 240, f"Picture: {label}", images=decode["image"]
    )
    shown.shown = 98 if small else None
    return Row([sample, decode, shown])


def preview(
    flow: Workflow, base: Base, model: Parts, prompts: Sequence[str], width: int = 400, **more: Any
) -> Node:
    inputs: dict[str, Any] = {"prompts": "\n".join(prompts), "steps": 20} | base.pictures | more
    return flow.add("EraseAnythingPreview", width, **model, **inputs)
