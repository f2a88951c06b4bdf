"""Graphs for the tests, in API format, small enough for one CPU core."""

from __future__ import annotations

from typing import Any

from host.client import Graph

MINIFLUX = "MiniFlux (bundled)"
SMALL = {
    "rank": 4,
    "alpha": 0.0,
    "targets": "add_q_proj add_k_proj",
    "batch": 4,
    "lr_low": 0.001,
    "lr_up": 0.0005,
    "eta": 0.5,
    "l_esd": 1.0,
    "l_attn": 1.0,
    "l_lora": 3.0,
    "l_rsc": 0.1,
    "l_adv": 1.0,
    "tau": 0.07,
    "rsc": "text",
    "attention_blocks": "",
    "null": "replace",
    "anchor": "",
    "rollout_prompt": "concept",
    "k": 2,
    "guidance_rollout": 3.5,
    "guidance_train": 3.5,
    "rollout_steps": 3,
    "erase_rollouts": 4,
    "keep_rollouts": 4,
    "refresh_every": 0,
    "shuffle": 0.2,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
    "activation_checkpointing": False,
    "max_grad_norm": 1.0,
}


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def load() -> Graph:
    """Node "load": MODEL, CLIP, VAE of MiniFlux."""
    files = dict.fromkeys(("transformer", "clip_l", "t5", "vae"), MINIFLUX)
    return {"load": node("EraseAnythingLoadFlux", weight_dtype="default", **files)}


def concept(name: str = "tiger", **more: Any) -> Graph:
    """Node "concept": MiniFlux's own set for a concept."""
    inputs = {"kind": "auto", "source": "MiniFlux", "sense": ""} | more
    return {"concept": node("EraseAnythingConceptSet", concept=name, **inputs)}


def train(name: str = "tiger", steps: int = 3, seed: int = 0, **more: Any) -> Graph:
    """Nodes "load", "concept", "settings" and "train"; ``more`` goes to either of the latter."""
    settings = SMALL | {key: value for key, value in more.items() if key in SMALL}
    own = {key: value for key, value in more.items() if key not in SMALL}
    inputs = {
        "model": ["load", 0],
        "clip": ["load", 1],
        "concepts": ["concept", 0],
        "settings": ["settings", 0],
        "steps": steps,
        "width": 64,
        "height": 64,
        "seed": seed,
        "filename_prefix": "eraser_%concept%",
        "folder": "models/loras",
        "preview_every": 0,
        "run": "start anew",
    }
    return {
        **load(),
        **concept(name),
        "settings": node("EraseAnythingSettings", **settings),
        "train": node("EraseAnythingTrain", **inputs | own),
    }


def draw(model: list[Any], prompt: str = "a tiger on a green background", steps: int = 4) -> Graph:
    """Standard nodes that draw ``prompt`` with ``model``; node "save" has the picture."""
    return {
        "prompt": node("CLIPTextEncode", clip=["load", 1], text=prompt),
        "guided": node("FluxGuidance", conditioning=["prompt", 0], guidance=3.5),
        "empty": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "sample": node(
            "KSampler",
            model=model,
            positive=["guided", 0],
            negative=["guided", 0],
            latent_image=["empty", 0],
            seed=1,
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["load", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="drawn"),
    }
