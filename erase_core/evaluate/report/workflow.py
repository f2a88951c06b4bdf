"""A ComfyUI workflow of the host's own nodes that draws without and with a LoRA.

It is what POST /prompt takes; the front end opens it, too, when it is dropped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

BUNDLED = "MiniFlux (bundled)"
PARTS = {"model", "clip_l", "t5", "vae"}  # of the models that this workflow loads
Workflow = dict[str, dict[str, Any]]


def workflow(
    files: Mapping[str, str], lora: str, prompt: str, how: Mapping[str, Any]
) -> Workflow | None:
    """The workflow for a ``lora``, None for models of other PARTS.

    ``files`` are those of the model by part, none for the miniature; ``how`` has size, steps and
    guidance.
    """
    if files and set(files) != PARTS:
        return None
    nodes, (model, clip, vae) = _host(files) if files else _bundled()
    width, height = (int(side) for side in how["size"].split("x"))
    nodes["5"] = _node("LoraLoaderModelOnly", lora_name=lora, strength_model=1.0, model=model)
    nodes["6"] = _node("CLIPTextEncode", text=prompt, clip=clip)
    nodes["7"] = _node("ConditioningZeroOut", conditioning=["6", 0])
    nodes["8"] = _node("FluxGuidance", guidance=how["guidance"], conditioning=["6", 0])
    nodes["9"] = _node("EmptySD3LatentImage", width=width, height=height, batch_size=1)
    for number, title, used in (("10", "untouched", model), ("20", "with the eraser", ["5", 0])):
        nodes[number] = _node(
            "KSampler", seed=0, steps=how["steps"], cfg=1.0, sampler_name="euler",
            scheduler="simple", denoise=1.0, model=used, positive=["8", 0], negative=["7", 0],
            latent_image=["9", 0],
        )  # fmt: skip
        nodes[f"{number}1"] = _node("VAEDecode", samples=[number, 0], vae=vae)
        nodes[f"{number}2"] = _node("PreviewImage", title, images=[f"{number}1", 0])
    return nodes


Loaded = tuple[Workflow, tuple[list[Any], list[Any], list[Any]]]


def _host(files: Mapping[str, str]) -> Loaded:
    """The host's own loaders, and their MODEL, CLIP and VAE."""
    names = {part: PurePath(path).name for part, path in files.items()}
    encoders = {"clip_name1": names["clip_l"], "clip_name2": names["t5"]}
    nodes = {
        "1": _node("UNETLoader", unet_name=names["model"], weight_dtype="default"),
        "2": _node("DualCLIPLoader", **encoders, type="flux"),
        "3": _node("VAELoader", vae_name=names["vae"]),
    }
    return nodes, (["1", 0], ["2", 0], ["3", 0])


def _bundled() -> Loaded:
    """MiniFlux's loader, which is ours."""
    parts = dict.fromkeys(("transformer", "clip_l", "t5", "vae"), BUNDLED)
    nodes = {"1": _node("EraseAnythingLoadFlux", weight_dtype="default", **parts)}
    return nodes, (["1", 0], ["1", 1], ["1", 2])


def _node(kind: str, title: str = "", /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}
