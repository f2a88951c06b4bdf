"""Graphs of the toys (tests/host/toys), for the tests of guards."""

from __future__ import annotations

from typing import Any

import torch
from host.client import Client, Graph, Run
from host.graphs import node
from torch import Tensor

from erase_core.tensors import read_tensors, save_tensors

FAMILIES = ["flux1", "chroma", "flux2", "sd3", "qwen_image", "z_image", "aura_flow"]
CFG = {"flux1": 1.0, "flux2": 1.0, "z_image": 1.0}  # else 4: FLUX.1 has its input, two have none
METHODS = ["dve", "word gate", "velocity gate"]  # irece: tests/host/test_irece.py
PROMPT, TWO = "a tiger in the snow", "a tiger in the snow\na car and a rose"


def concepts(*names: str) -> Graph:
    inputs = {"kind": "entity", "source": "by hand", "sense": ""}
    words = {"synonyms": "", "none": "", "far": "", "mid": "", "near": ""}
    return {
        name: node("EraseAnythingConceptSet", concept=name, **inputs, **words) for name in names
    }


def guard(model: list[Any], name: str = "tiger", **more: Any) -> dict[str, Any]:
    """A guard; DVE by the paper's formula: whatever was asked, each step for itself."""
    told = {"method": "dve", "strength": 1.0, "start": 0.0, "end": 1.0, "anchor": "lion"}
    told |= {"words": False, "every": 1} | more
    return node("EraseAnythingGuard", model=model, clip=["toy", 1], concepts=[name, 0], **told)


def graph(family: str, prompt: str = PROMPT, batch: int = 1, **latent: Any) -> Graph:
    """Nodes "toy", "tiger", "rose", "prompt", "nothing", "latent" and "sample" of a plain MODEL."""
    return {
        "toy": node("ToyModel", family=family),
        **concepts("tiger", "rose"),
        "prompt": node("ToyPrompts", clip=["toy", 1], text=prompt),
        "nothing": node("ToyPrompts", clip=["toy", 1], text=""),
        "latent": node("ToyLatent", model=["toy", 0], batch=batch, **{"seed": -1} | latent),
    }


def sample(model: list[Any], cfg: float = 1.0, **more: Any) -> dict[str, Any]:
    told = {
        "positive": ["prompt", 0], "negative": ["nothing", 0], "latent_image": ["latent", 0],
        "seed": 7, "steps": 4, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
    }  # fmt: skip
    return node("KSampler", model=model, cfg=cfg, **told | more)


def euler(
    cfg: float = 1.0, prompt: str = PROMPT, concept: str = "tiger", model: str = "toy", **more: Any
) -> dict[str, Any]:
    told = {"negative": "", "seed": 7, "steps": 4, "anchor": "lion", "strength": 1.0} | more
    return node(
        "ToyEuler", model=[model, 0], clip=["toy", 1], latent=["latent", 0], prompt=prompt,
        cfg=cfg, concept=concept, **told,
    )  # fmt: skip


def save(latent: str, model: str = "toy") -> dict[str, Any]:
    return node("ToySave", model=[model, 0], latent=[latent, 0], name=latent)


def run(server: Client, graph: Graph) -> Run:
    done = server.run(graph)
    assert done.ok, done.error
    return done


def saved(server: Client, name: str) -> Tensor:
    return read_tensors(server.base / "output" / f"{name}.safetensors")[0]["samples"]


def close(a: Tensor, b: Tensor, most: float = 1e-5) -> None:
    assert (a - b).abs().max() <= most * b.abs().max(), (a - b).abs().max() / b.abs().max()


def together(server: Client, family: str, **samples: dict[str, Any]) -> dict[str, Tensor]:
    """Latents of several nodes in one run."""
    saves = {f"save {name}": save(name) for name in samples if name.startswith("drawn")}
    run(server, graph(family) | samples | saves)
    return {name: saved(server, name) for name in samples if name.startswith("drawn")}


LAYERS = {  # family -> a Linear that reads text, with its (out, in)
    "flux1": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "chroma": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "flux2": ("double_blocks.0.txt_attn.qkv", 768, 256),
    "sd3": ("joint_blocks.0.context_block.attn.qkv", 384, 128),
    "qwen_image": ("transformer_blocks.0.attn.add_q_proj", 256, 256),
    "z_image": ("layers.0.attention.qkv", 768, 256),
    "aura_flow": ("cond_seq_linear", 256, 32),
    "sd15": ("middle_block.1.transformer_blocks.0.attn2.to_k", 64, 32),
}


def eraser(server: Client, family: str, seed: int = 1) -> str:
    """A file that changes one layer of a family, as the LoRA list calls it."""
    name, out, into = LAYERS[family]
    generator = torch.Generator().manual_seed(seed)
    layer = f"diffusion_model.{name}"
    tensors = {
        f"{layer}.lora_A.weight": torch.randn(4, into, generator=generator) / into**0.5,
        f"{layer}.lora_B.weight": torch.randn(out, 4, generator=generator),
    }
    save_tensors(server.base / "models" / "loras" / f"{family}-{seed}.safetensors", tensors)
    return f"{family}-{seed}.safetensors"


def told_of(server: Client, method: str, family: str) -> dict[str, Any]:
    """A guard's inputs for a method."""
    return {"method": method} | ({} if method == "dve" else {"lora_file": eraser(server, family)})
