"""An eraser where people use LoRAs: strengths, beside a style, fp8, little memory; see inside.py.

python matrix.py matrix HOST PACKAGE BASE OUT
"""

from __future__ import annotations

from typing import Any

import inside  # the host's process

# isort: split
import comfy.model_management
import torch
from eraseanything.erase_core.erasers.combine import Part, combine
from eraseanything.erase_core.erasers.lora import EraserLora
from eraseanything.nodes import eraser, hosts
from inside import (
    BASE,
    PROMPTS,
    SIGMA,
    host_nodes,
    latents,
    random_lora,
    relative,
    standalone,
    unet,
)

STRENGTHS = (-1.0, 0.3, 1.0, 2.0)
LORAS = BASE / "models" / "loras"
AWAY: list[int] = []  # weights that were patched on their way, each time with little memory


def style(config: Any) -> Any:
    """Another LoRA, on other Linears and one that the eraser has, too."""
    slots = inside.FAMILY.slots(config, ["add_q_proj", "add_v_proj"])
    lora = EraserLora.create(slots, 2, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in lora.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return lora


def saved() -> tuple[Any, Any, Any]:
    """The miniature of the core, an eraser and a style, which are files, too."""
    own = standalone()
    made = random_lora(own.config, 0.15), style(own.config)  # more than fp8 rounds away
    for lora, name in zip(made, ("eraser", "style"), strict=True):
        lora.save(LORAS / f"{name}.safetensors")
    return own, *made


def loaded(model: Any, name: str, strength: float = 1.0) -> Any:
    """With the host's own Load LoRA."""
    with torch.inference_mode():
        loader = host_nodes.LoraLoaderModelOnly()
        return loader.load_lora_model_only(model, f"{name}.safetensors", strength)[0]


def sampled(model: Any, cond: Any, memory: int | None = None) -> Any:
    """The host's own velocity; with ``memory`` only so many bytes of weights are loaded."""
    if memory is None:
        return inside.sampled(model, latents(), cond)
    comfy.model_management.unload_all_models()
    with torch.inference_mode():
        model.model_patches_to(model.load_device)
        model.patch_model(model.load_device, lowvram_model_memory=memory)
        AWAY.append(model.model.model_lowvram and model.model.lowvram_patch_counter)
        try:
            guidance = torch.full((len(PROMPTS),), 3.5)
            x = latents()
            denoised = model.model.apply_model(
                x, SIGMA, c_crossattn=cond.context, y=cond.pooled, guidance=guidance
            )
            return ((x - denoised) / SIGMA[:, None, None, None]).clone()
        finally:
            model.unpatch_model(model.offload_device)


def matrix_strengths() -> dict[str, Any]:
    """The host's velocity at every strength, beside the core's own."""
    own, lora, _ = saved()
    cond, model = own.text.encode(PROMPTS), unet()
    plain = sampled(model, cond)
    found = {}
    for strength in STRENGTHS:
        with torch.no_grad():
            ours = own.velocity(latents(), SIGMA, cond, 3.5, lora.scaled(strength))
        theirs = sampled(loaded(model, "eraser", strength), cond)
        found[f"{strength:g}"] = {
            "difference": relative(theirs, ours), "change": relative(theirs, plain)
        }  # fmt: skip
    return found | {"again": relative(sampled(model, cond), plain)}


def matrix_style() -> dict[str, Any]:
    """Beside another LoRA, before and after it, and as one file."""
    own, lora, other = saved()
    cond, model = own.text.encode(PROMPTS), unet()
    first = sampled(loaded(loaded(model, "eraser"), "style"), cond)
    second = sampled(loaded(loaded(model, "style"), "eraser"), cond)
    parts = [Part(each.tensors(), 1.0, {}) for each in (lora, other)]
    inside.comfy.utils.save_torch_file(combine(parts), str(LORAS / "both.safetensors"))
    one = sampled(loaded(model, "both"), cond)
    alone = sampled(loaded(model, "style"), cond)
    return {
        "order": relative(first, second),
        "one_file": relative(first, one),
        "change": relative(first, alone),
        "taken": eraser.taken(model, loaded(loaded(model, "style"), "eraser")),
        "told": len(lora.tensors()) // 2 + len(other.tensors()) // 2,
    }


def matrix_fp8() -> dict[str, Any]:
    """On an fp8 base the eraser's change is that on the exact one, nearly."""
    own, _, _ = saved()
    cond, found = own.text.encode(PROMPTS), {}
    exact = unet()
    wanted = sampled(loaded(exact, "eraser"), cond) - sampled(exact, cond)
    for dtype in ("fp8_e4m3fn", "fp8_e5m2"):
        model = unet(dtype)
        change = sampled(loaded(model, "eraser"), cond) - sampled(model, cond)
        cosine = torch.nn.functional.cosine_similarity(change.flatten(), wanted.flatten(), dim=0)
        found[dtype] = {"cosine": float(cosine), "size": float(change.norm() / wanted.norm())}
    return found


def matrix_memory() -> dict[str, Any]:
    """Where the host keeps weights away and patches them on their way."""
    own, _, _ = saved()
    cond, model = own.text.encode(PROMPTS), unet()
    with_it = loaded(model, "eraser")
    wanted, plain = sampled(with_it, cond), sampled(model, cond)
    half = hosts_bytes(model) // 2
    found = {}
    for name, memory in (("none", 1), ("half", half)):
        found[name] = relative(sampled(with_it, cond, memory), wanted)
    return found | {"change": relative(wanted, plain), "away": AWAY}


def hosts_bytes(model: Any) -> int:
    return sum(t.nbytes for t in model.model.state_dict().values())


if __name__ == "__main__":
    hosts.load(unet())
    inside.main(globals())
