"""What the workflows are made of: models, and groups of nodes that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from files import Node, Workflow

MINIFLUX = "MiniFlux (bundled)"
Parts = Mapping[str, tuple[Node, int]]  # outputs of what loads a model: model, clip, vae


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
    steps: int = 20
    sampler: str = "euler"
    guided: bool = True  # guidance is an input of the model
    cfg: float = 1.0  # above 1 pictures are drawn away from an empty prompt
    latent: str = "EmptySD3LatentImage"
    clip_type: str = ""  # of the host's own loaders; "" for Load Flux
    shift: float = 0.0  # of the schedule, where the model's own does not suit
    urls: tuple[str, ...] = ()  # where the files of the host's own loaders are, in their order

    @property
    def below(self) -> int:
        """Where there is room below what loads the model."""
        return (560 if self.shift else 480) if self.clip_type else 280


MINI = Base(
    "MiniFlux",
    dict.fromkeys(("transformer", "clip_l", "t5", "vae"), MINIFLUX),
    128,
    4,
    "MiniFlux",
    {"seeds": 3},
    "MiniFlux comes with EraseAnything: nothing to download, minutes on a CPU.",
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
    guided=False,
    clip_type="lumina2",
    shift=3.0,
)
_HUB = "https://huggingface.co/Comfy-Org"
_Z = f"{_HUB}/z_image_turbo/resolve/main/split_files"
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
    guided=False,
    cfg=4.0,
    clip_type="lumina2",
    urls=(
        f"{_HUB}/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
        f"{_Z}/text_encoders/qwen_3_4b.safetensors",
        f"{_Z}/vae/ae.safetensors",
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
    guided=False,
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
    guided=False,
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
    guided=False,
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
    guided=False,
    cfg=4.0,
    clip_type="chroma",
    shift=1.0,
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
FOLDERS = ("diffusion_models", "text_encoders", "vae")  # of the host's own loaders' files


def load(flow: Workflow, base: Base, pos: tuple[int, int] = (0, 0)) -> Node | Parts:
    if base.clip_type:
        return _load_parts(flow, base)
    node = flow.add("EraseAnythingLoadFlux", pos, (340, 190), **base.files)
    flow.group("1 · The model", "load", node)
    return node


def _load_parts(flow: Workflow, base: Base) -> Parts:
    """A base that Load Flux does not load, with the host's own loaders."""
    names, kind = base.files, base.clip_type
    if "ckpt_name" in names:
        return _load_checkpoint(flow, base)
    tree = flow.add("UNETLoader", (0, 0), (340, 90), unet_name=names["unet_name"])
    clip = flow.add("CLIPLoader", (0, 150), (340, 110), clip_name=names["clip_name"], type=kind)
    vae = flow.add("VAELoader", (0, 320), (340, 60), vae_name=names["vae_name"])
    made, model = [tree, clip, vae], tree["model"]
    for node, name, folder, url in zip(made, names.values(), FOLDERS, base.urls, strict=False):
        node.files = [{"name": name, "url": url, "directory": folder}]
    if base.shift:
        size = (340, 60)
        made.append(
            flow.add("ModelSamplingAuraFlow", (0, 440), size, model=model, shift=base.shift)
        )
        model = made[-1]["model"]
    flow.group("1 · The model", "load", *made)
    return {"model": model, "clip": clip["clip"], "vae": vae["vae"]}


def _load_checkpoint(flow: Workflow, base: Base) -> Parts:
    """A base whose file has all its parts."""
    name = base.files["ckpt_name"]
    node = flow.add("CheckpointLoaderSimple", (0, 0), (340, 110), ckpt_name=name)
    node.files = [{"name": name, "url": base.urls[0], "directory": "checkpoints"}]
    flow.group("1 · The model", "load", node)
    return {part: node[part] for part in ("model", "clip", "vae")}


def concept(flow: Workflow, base: Base, name: str, pos: tuple[int, int], **more: Any) -> Node:
    inputs: dict[str, Any] = {"concept": name, "source": base.source} | more
    return flow.add("EraseAnythingConceptSet", pos, (420, 720), **inputs)


def train(
    flow: Workflow, model: Node | Parts, concepts: Node, pos: tuple[int, int], **more: Any
) -> Node:
    return flow.add(
        "EraseAnythingTrain",
        pos,
        (440, 960),
        model=model["model"],
        clip=model["clip"],
        vae=model["vae"],
        concepts=concepts["concepts"],
        **more,
    )


def draw(
    flow: Workflow,
    base: Base,
    model: Node | Parts,
    prompt: str,
    pos: tuple[int, int],
    models: dict[str, tuple[Node, int]],
    negative: str = "",
) -> list[Node]:
    """ComfyUI's own nodes: one prompt, the same seed with each of the models."""
    x, y = pos
    text = flow.add("CLIPTextEncode", (x, y), (320, 140), "Prompt", clip=model["clip"], text=prompt)
    made, positive = [text], text["conditioning"]
    if base.guided:
        guided = flow.add(
            "FluxGuidance", (x, y + 190), (320, 60), conditioning=positive, guidance=3.5
        )
        made.append(guided)
        positive = guided["conditioning"]
    if base.cfg > 1:
        title, told = "Negative prompt", {"clip": model["clip"], "text": ""}
        against = flow.add("CLIPTextEncode", (x, y + 300), (320, 140), title, **told)
    elif negative:
        title, told = "Negative: only NAG reads it", {"clip": model["clip"], "text": negative}
        against = flow.add("CLIPTextEncode", (x, y + 300), (320, 140), title, **told)
    else:
        against = flow.add(
            "ConditioningZeroOut", (x, y + 300), (320, 30), conditioning=text["conditioning"]
        )
    size: dict[str, Any] = {"width": base.side, "height": base.side, "batch_size": base.batch}
    top = y + (490 if negative or base.cfg > 1 else 380)
    empty = flow.add(base.latent, (x, top), (320, 110), **size)
    made += [against, empty]
    for number, (label, source) in enumerate(models.items()):
        top = y + number * 510
        sample = flow.add(
            "KSampler",
            (x + 360, top),
            (300, 270),
            f"KSampler: {label}",
            model=source,
            positive=positive,
            negative=against["conditioning"],
            latent_image=empty["latent"],
            seed=1,
            steps=base.steps,
            cfg=base.cfg,
            sampler_name=base.sampler,
            scheduler="simple",
        )
        decode = flow.add(
            "VAEDecode", (x + 360, top + 370), (300, 60), samples=sample["latent"], vae=model["vae"]
        )
        shown = flow.add(
            "PreviewImage", (x + 700, top), (360, 430), f"Picture: {label}", images=decode["image"]
        )
        made += [sample, decode, shown]
    return made


def preview(
    flow: Workflow,
    base: Base,
    model: Node | Parts,
    prompts: list[str],
    pos: tuple[int, int],
    **more: Any,
) -> Node:
    inputs: dict[str, Any] = {"prompts": "\n".join(prompts), "steps": 20} | base.pictures | more
    size = (440, 760)
    sources: dict[str, Any] = {name: model[name] for name in ("model", "clip", "vae")}
    return flow.add("EraseAnythingPreview", pos, size, **sources, **inputs)
