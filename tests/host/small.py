"""A small transformer of a family as the host's own loaders give it, beside ours; see inside.py."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import inside  # the host's process
import torch
from eraseanything.erase_core.erasers.edit import WeightEdit
from eraseanything.erase_core.erasers.lora import EraserLora
from eraseanything.erase_core.models.base import Model, Probe
from eraseanything.erase_core.tensors import read_tensors
from eraseanything.nodes import drawing, hosts
from inside import (
    BASE,
    HELD,
    OUT,
    PROMPTS,
    SIGMA,
    digest,
    execute,
    relative,
    shaken,
)

import nodes as host_nodes

LORAS = BASE / "models" / "loras"


def random_weights(tree: Any) -> Any:
    """A tree with weights that keep their inputs' size."""
    torch.manual_seed(0)
    for parameter in tree.requires_grad_(False).parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
    return tree


def unet(file: str) -> Any:
    """A MODEL of UNETLoader's, as the executor has it made."""
    with torch.inference_mode():
        return host_nodes.UNETLoader().load_unet(file, "default")[0]


class ToyVae:
    """Pictures of 8 px a latent, by one random matrix and its inverse."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.matrix = torch.randn(3 * 64, 16, generator=generator) / 16**0.5

    def decode(self, latents: Any) -> Any:
        found = torch.einsum("oc,nchw->nohw", self.matrix, latents)
        return torch.nn.functional.pixel_shuffle(found, 8).sigmoid().movedim(1, -1)

    def encode(self, images: Any) -> Any:
        wide = torch.nn.functional.pixel_unshuffle(images.movedim(-1, 1), 8)
        return torch.einsum("co,nohw->nchw", torch.linalg.pinv(self.matrix), wide)


@dataclass(frozen=True)
class Small:
    """A family's transformer in a ``file``, and in the core as ``model()`` gives it.

    ``name`` is that of its erasers, whose random weights are as large as ``strength``. ``sampled``
    gives the velocity that the host itself computes, of a MODEL that ``unet`` makes of the file;
    ``edited`` are Linears to be edited.
    """

    name: str
    file: str
    strength: float
    clip: Callable[[], Any]
    model: Callable[[], Model]
    latents: Callable[[], Any]
    sampled: Callable[[Any, Any, Any], Any]
    unet: Callable[[str], Any] = unet
    edited: tuple[str, ...] = ("txt_in", "double_blocks.1.txt_attn.qkv")

    def lora(self) -> Any:
        """Random weights in every role."""
        model = self.model()
        lora = EraserLora.create(model.slots(model.family.roles), 4, seed=0)
        shaken(lora, self.strength)
        return lora

    def edit(self) -> WeightEdit:
        edit = WeightEdit.zeros(self.model().tree, self.edited)
        shaken(edit, 0.03)
        return edit

    def velocity(self) -> dict[str, Any]:
        """Host + our LoRA file in the host's loader, against our forward; our forward over its
        layers; what is not loaded."""
        model, core, lora, edit = self.unet(self.file), self.model(), self.lora(), self.edit()
        x, cond = self.latents(), core.text.encode(PROMPTS)
        with torch.no_grad():
            plain, changed, edited = (
                core.velocity(x, SIGMA, cond, None, e) for e in (None, lora, edit)
            )
        warned: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        with_lora, with_edit = (
            self.with_file(model, eraser, f"{self.name}{end}.safetensors")
            for eraser, end in ((lora, ""), (edit, "_edit"))
        )
        logging.getLogger().removeHandler(handler)
        found = {
            "plain": relative(self.sampled(model, x, cond), plain),
            "lora": relative(self.sampled(with_lora, x, cond), changed),
            "edit": relative(self.sampled(with_edit, x, cond), edited),
            "change": relative(changed, plain),
            "edit_change": relative(edited, plain),
            "not_loaded": [line for line in warned if "not loaded" in line],
        }
        hosts.load(with_lora)
        opened = hosts.open_model(with_lora, self.clip())
        with torch.no_grad():  # a MODEL that carries a LoRA, seen through the trainer's tree
            found["carried"] = relative(opened.velocity(x, SIGMA, cond), changed)
        return found | {"family": opened.family.name, "name": opened.name}

    def with_file(self, model: Any, eraser: Any, file: str) -> Any:
        """The MODEL with an eraser's file, by the host's own loader."""
        eraser.save(LORAS / file)
        with torch.inference_mode():
            return host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, file, 1.0)[0]

    def gradients(self) -> float:
        """Through UNETLoader's inference tensors, both passes."""
        core, model = self.model(), self.unet(self.file)
        cond = core.text.encode(PROMPTS)
        wanted = self.gradient(core, cond)
        hosts.load(model)
        with torch.inference_mode(), hosts.training():
            return relative(self.gradient(hosts.open_model(model, self.clip()), cond), wanted)

    def gradient(self, model: Model, cond: Any) -> Any:
        lora = self.lora()
        out = model.velocity(self.latents(), SIGMA, cond, 4.0, lora)
        out.square().mean().backward(inputs=lora.parameters())
        unread = {p: torch.zeros_like(p) for p in lora.parameters() if p.grad is None}
        return torch.cat([unread.get(p, p.grad).flatten() for p in lora.parameters()])

    def attention(self) -> float:
        """What image queries pay to words: through the host's layers, against the standalone
        tree's."""
        core, model = self.model(), self.unet(self.file)
        cond = core.text.encode(PROMPTS[:1])
        probe = Probe((0, 1), core.text.token_mask(PROMPTS[0], "tiger")[None, None])
        hosts.load(model)
        with torch.no_grad():
            wanted, found = (
                m.attention(self.latents()[:1], SIGMA[0], cond, None, probe)
                for m in (core, hosts.open_model(model, self.clip()))
            )
        return relative(found, wanted)

    def pictures(self, vae: Any, steps: int) -> dict[str, Any]:
        """The host's KSampler with true CFG against our own sampler."""
        core, model = self.model(), self.unet(self.file)
        cond, told = core.text.encode(PROMPTS[:2]), list[int]()
        with torch.inference_mode():
            images = drawing.draw(
                model, vae, cond, [5, 6], (64, 96), steps, 4.0, on_step=told.append
            )
        ours, once = (
            drawing.decode(model, vae, drawn)
            for drawn in (
                core.draw(cond, [5, 6], guidance=guidance, size=(64, 96), steps=steps)
                for guidance in (4.0, 1.0)
            )
        )
        return {
            "mean": float((images - ours).abs().mean()),
            "unguided": float((once - ours).abs().mean()),
            "contrast": float(ours.std()),
            "steps": [told[0], told[-1]],
        }

    def graph(self, kind: str, **inputs: Any) -> Any:
        """A graph that trains with the MODEL, CLIP and VAE of ``HELD``, or one of another node."""
        made = json.loads((OUT.parent / "train.json").read_text())
        made["settings"]["inputs"]["targets"] = ""  # as the preset has it
        made["load"] = {"class_type": "Given", "inputs": {"name": self.name}}
        if kind != "EraseAnythingTrain":
            made = {"load": made["load"], "concept": made["concept"]}
            made["node"] = {
                "class_type": kind, "inputs": {"model": ["load", 0], "clip": ["load", 1]},
            }  # fmt: skip
        made["train" if kind == "EraseAnythingTrain" else "node"]["inputs"] |= inputs
        return made

    def nodes(
        self, vae: Any, size: int, blocks: str, more: Callable[[], Any] = dict
    ) -> dict[str, Any]:
        """Every node that opens a MODEL, run by the host's executor; the MODEL's weights before and
        after. ``more`` gives graphs of its own."""
        inside.know_our_nodes()
        model = self.unet(self.file)
        HELD[self.name] = (model, self.clip(), vae)
        before = digest(model)
        saved = {"filename_prefix": f"{self.name}_%concept%", "concepts": ["concept", 0]}
        drawn = {"width": size, "height": size, "steps": 2, "seed": 1, "guidance": 4.0}
        drawn |= {"vae": ["load", 2]}
        wanted = {
            "train": self.graph("EraseAnythingTrain", **saved, preview_every=1, vae=["load", 2]),
            "instant": self.graph(
                "EraseAnythingInstant", **saved | {"filename_prefix": f"second_{self.name}"},
                method="uce", strength=1.0, rank=0, prompts=3, seed=0, folder="models/loras",
            ),
            "attention": self.graph(
                "EraseAnythingAttentionMap", **drawn, prompt=PROMPTS[0], words="tiger",
                blocks=blocks, at_steps="",
            ),
            "preview": self.graph(
                "EraseAnythingPreview", **drawn, prompts="\n".join(PROMPTS), strengths="0 1",
                seeds=1, blur=False, lora_file=f"{self.name}.safetensors",
            ),
        } | more()  # fmt: skip
        outcomes = {}
        for name, made in wanted.items():
            runner = execute(made)
            outcomes[name] = inside.failure(runner) or runner.success
        instant = next(iter(LORAS.glob(f"second_{self.name}_*.safetensors")), None)
        return {
            "outcomes": outcomes,
            "untouched": digest(model) == before,
            "trained": self.trained(),
            "edited": sorted(read_tensors(instant)[0]) if instant else [],
        }

    def trained(self) -> dict[str, Any]:
        """What the file of the trained eraser holds."""
        (file,) = LORAS.glob(f"{self.name}_tiger*.safetensors")
        tensors, metadata = read_tensors(file)
        return {
            "keys": len(tensors),
            "first": min(tensors),
            "base": metadata["ss_base_model_version"],
            "finite": all(bool(t.isfinite().all()) for t in tensors.values()),
        }
