"""A ComfyUI workflow of the host's own nodes that draws without and with a LoRA.

It is what POST /prompt takes; the front end opens it, too, when it is dropped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

BUNDLED = "MiniFlux (bundled)"
Workflow = dict[str, dict[str, Any]]


class Loading(NamedTuple):
    """How the host loads a family: the type of its text encoder, empty latents, and the shift of
    its schedule (0: the model's own)."""

    clip_type: str
    latent: str = "EmptySD3LatentImage"
    shift: float = 0.0


FAMILIES = {
    "flux1": Loading("flux"),
    "chroma": Loading("chroma", shift=1.0),
    "flux2": Loading("flux2", "EmptyFlux2LatentImage"),
    "zimage": Loading("lumina2", shift=3.0),
}


def workflow(
    family: str,
    files: Mapping[str, str],
    lora: str,
    prompt: str,
    how: Mapping[str, Any],
    scaled: bool,
) -> Workflow | None:
    """The workflow for a ``lora``, or None for a family that is not known here.

    ``files`` are those of the model by part, none for the miniature; ``how`` has size, steps and
    guidance; ``scaled``: guidance is the scale of a negative prompt.
    """
    if family not in FAMILIES:
        return None
    loading = FAMILIES[family]
    nodes = _host(loading, files) if files else _bundled()
    model, clip, vae = nodes.pop("outputs")["links"]
    if loading.shift and files:
        nodes["4"] = _node("ModelSamplingAuraFlow", shift=loading.shift, model=model)
        model = ["4", 0]
    width, height = (int(side) for side in how["size"].split("x"))
    nodes["5"] = _node("LoraLoaderModelOnly", lora_name=lora, strength_model=1.0, model=model)
    nodes["6"] = _node("CLIPTextEncode", text=prompt, clip=clip)
    nodes["7"] = (
        _node("CLIPTextEncode", text="", clip=clip)
        if scaled
        else _node("ConditioningZeroOut", conditioning=["6", 0])
    )
    nodes["8"] = _node("FluxGuidance", guidance=how["guidance"], conditioning=["6", 0])
    nodes["9"] = _node(loading.latent, width=width, height=height, batch_size=1)
    for number, used in (("10", model), ("20", ["5", 0])):
        nodes[number] = _node(
            "KSampler", seed=0, steps=how["steps"], cfg=how["guidance"] if scaled else 1.0,
            sampler_name="euler", scheduler="simple", denoise=1.0, model=used,
            positive=["6", 0] if scaled else ["8", 0], negative=["7", 0], latent_image=["9", 0],
        )  # fmt: skip
        nodes[f"{number}1"] = _node("VAEDecode", samples=[number, 0], vae=vae)
        title = "untouched" if number == "10" else "with the eraser"
        nodes[f"{number}2"] = _node("PreviewImage", title, images=[f"{number}1", 0])
    if scaled:
        del nodes["8"]
    return nodes


def _host(loading: Loading, files: Mapping[str, str]) -> Workflow:
    """The host's own loaders."""
    named = {part: PurePath(path).name for part, path in files.items()}
    tree = _node("UNETLoader", unet_name=named.get("model", ""), weight_dtype="default")
    if loading.clip_type == "flux":
        names = {"clip_name1": named.get("clip_l", ""), "clip_name2": named.get("t5", "")}
        clip = _node("DualCLIPLoader", **names, type="flux")
    else:
        name = named.get("t5") or named.get("qwen", "")
        clip = _node("CLIPLoader", clip_name=name, type=loading.clip_type)
    vae = _node("VAELoader", vae_name=named.get("vae", ""))
    return {"1": tree, "2": clip, "3": vae, "outputs": {"links": [["1", 0], ["2", 0], ["3", 0]]}}


def _bundled() -> Workflow:
    """MiniFlux's loader, which is ours."""
    parts = dict.fromkeys(("transformer", "clip_l", "t5", "vae"), BUNDLED)
    node = _node("EraseAnythingLoadFlux", weight_dtype="default", **parts)
    return {"1": node, "outputs": {"links": [["1", 0], ["1", 1], ["1", 2]]}}


def _node(kind: str, title: str = "", /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}
