"""What the workflows are made of: models, and groups of nodes that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from files import Node, Workflow

MINIFLUX = "MiniFlux (bundled)"


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
    cfg: float = 1.0  # else: away from a negative prompt
    clip: str = ""  # the type of its text encoder, of bases with loaders of their own
    shift: float = 3.0  # of these


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
    clip="lumina2",
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
    clip="chroma",
    shift=1.0,
)
HALF = {
    "MiniFlux": ("a tiger on a green background", "a car on a yellow background"),
    "Flux.1-dev": (
        "a photo of a tiger walking through tall grass",
        "a photo of a car parked in tall grass",
    ),
}
HALF["Z-Image-Turbo"] = HALF["Chroma1-HD"] = HALF["Flux.1-dev"]
Parts = Mapping[str, tuple[Node, int]]  # outputs of what loads a model: model, clip, vae


def load(flow: Workflow, base: Base, pos: tuple[int, int] = (0, 0)) -> Node | Parts:
    if base.clip:
        return load_parts(flow, base)
    node = flow.add("EraseAnythingLoadFlux", pos, (340, 190), **base.files)
    flow.group("1 · The model", "load", node)
    return node


def load_parts(flow: Workflow, base: Base) -> Parts:
    """A base that Load Flux does not load, with the host's own loaders."""
    names = base.files
    tree = flow.add("UNETLoader", (0, 0), (340, 90), unet_name=names["unet_name"])
    clip = flow.add(
        "CLIPLoader", (0, 150), (340, 110), clip_name=names["clip_name"], type=base.clip
    )
    vae = flow.add("VAELoader", (0, 320), (340, 60), vae_name=names["vae_name"])
    shifted = flow.add(
        "ModelSamplingAuraFlow", (0, 440), (340, 60), model=tree["model"], shift=base.shift
    )
    flow.group("1 · The model", "load", tree, clip, vae, shifted)
    return {"model": shifted["model"], "clip": clip["clip"], "vae": vae["vae"]}


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
    if negative or base.cfg != 1.0:
        title = "Negative: only NAG reads it" if base.cfg == 1.0 else "Negative prompt"
        told: dict[str, Any] = {"clip": model["clip"], "text": negative}
        against = flow.add("CLIPTextEncode", (x, y + 300), (320, 140), title, **told)
    else:
        against = flow.add(
            "ConditioningZeroOut", (x, y + 300), (320, 30), conditioning=text["conditioning"]
        )
    size: dict[str, Any] = {"width": base.side, "height": base.side, "batch_size": base.batch}
    top = y + (490 if negative or base.cfg != 1.0 else 380)
    empty = flow.add("EmptySD3LatentImage", (x, top), (320, 110), **size)
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
