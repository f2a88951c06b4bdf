"""Gradients through the host's own transformers, in the host's process; one JSON file out.

    python gradients.py HOST PACKAGE OUT

Every function named ``family_...`` makes a toy of one of the host's classes, float32 with
``in_training`` set, and says what :mod:`finite` finds; None where this host lacks the family.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HOST, PACKAGE, OUT = (Path(argument) for argument in sys.argv[1:4])
sys.path.insert(0, str(HOST))
sys.path.append(str(PACKAGE / "tests"))
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.chroma.model  # noqa: E402
import comfy.ldm.flux.model  # noqa: E402
import comfy.ldm.lumina.model  # noqa: E402
import comfy.ldm.modules.diffusionmodules.mmdit  # noqa: E402
import comfy.ldm.qwen_image.model  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from finite import Rows, randomise, slopes, told  # noqa: E402
from torch import Tensor  # noqa: E402

WIDTH, TEXT = 256, 32  # of a token and of a text state
MADE = {"dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
FLUX1: dict[str, Any] = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": TEXT,
    "hidden_size": WIDTH, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56], "theta": 10_000, "patch_size": 2, "qkv_bias": True,
    "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = FLUX1 | {
    "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "axes_dim": [32] * 4,
    "theta": 2000, "patch_size": 1, "qkv_bias": False, "guidance_embed": False,
    "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
}  # fmt: skip
CHROMA = FLUX1 | {
    "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": WIDTH, "hidden_dim": 32,
    "n_layers": 1,
}  # fmt: skip


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


SIGMA = torch.tensor([0.8, 0.4])
CONTEXT = normal(2, 5, TEXT)
LATENTS = normal(2, 16, 4, 6)
POOLED = normal(2, 16)
GUIDANCE = torch.full((2,), 3.5)


def taken(parameters: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a dataclass of the host's knows."""
    known = {field.name for field in dataclasses.fields(parameters)}
    return {name: value for name, value in settings.items() if name in known}


def thirds(name: str, weight: Tensor) -> dict[str, Rows]:
    """q and k of a fused projection."""
    width = len(weight) // 3
    return {
        f"{name} q": Rows(weight, slice(0, width)),
        f"{name} k": Rows(weight, slice(width, 2 * width)),
    }


def family_qwen_image() -> dict[str, Any]:
    model: Any = randomise(
        comfy.ldm.qwen_image.model.QwenImageTransformer2DModel(
            num_layers=2, num_attention_heads=2, joint_attention_dim=TEXT, **MADE
        )
    )
    x, attention = LATENTS[:, :, None].clone(), model.transformer_blocks[0].attn
    asked = {
        "input": Rows(x),
        "text q": Rows(attention.add_q_proj.weight),
        "text k": Rows(attention.add_k_proj.weight),
    }
    return told(lambda: slopes(lambda: model(x, SIGMA, CONTEXT), asked))


def family_z_image() -> dict[str, Any] | None:
    next_dit = comfy.ldm.lumina.model.NextDiT
    if "z_image_modulation" not in inspect.signature(next_dit).parameters:
        return None
    model: Any = randomise(
        next_dit(
            in_channels=16, dim=WIDTH, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
            ffn_dim_multiplier=1.0, qk_norm=True, cap_feat_dim=TEXT, axes_dims=[32, 48, 48],
            rope_theta=256.0, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32,
            **MADE,
        )
    )  # fmt: skip
    x = LATENTS.clone()
    asked = {
        "input": Rows(x),
        "cap_embedder": Rows(model.cap_embedder[1].weight),
        **thirds("text", model.context_refiner[0].attention.qkv.weight),
        **thirds("shared", model.layers[0].attention.qkv.weight),
    }
    return told(lambda: slopes(lambda: model(x, SIGMA, CONTEXT, None), asked))


def family_sd3() -> dict[str, Any]:
    embedder = {"in_features": TEXT, "out_features": 128}
    model: Any = randomise(
        comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper(
            input_size=None, in_channels=16, depth=2, num_patches=64, pos_embed_max_size=8,
            adm_in_channels=16, qk_norm="rms", x_block_self_attn_layers=[0],
            context_embedder_config={"target": "torch.nn.Linear", "params": embedder}, **MADE,
        )
    )  # fmt: skip
    model.pos_embed.copy_(normal(*model.pos_embed.shape))
    x, text = LATENTS.clone(), model.joint_blocks[0].context_block.attn.qkv.weight
    asked = {"input": Rows(x), **thirds("text", text)}
    return told(lambda: slopes(lambda: model(x, SIGMA * 1000, CONTEXT, POOLED), asked))


def flux_like(model: Any, x: Tensor, *more: Tensor) -> dict[str, Any]:
    """What the host's own forward of a tree with BFL names gives."""
    text = model.double_blocks[0].txt_attn.qkv.weight
    asked = {"input": Rows(x), **thirds("text", text)}
    return told(lambda: slopes(lambda: model(x, SIGMA, CONTEXT, *more), asked))


def flux1() -> Any:
    settings = taken(comfy.ldm.flux.model.FluxParams, FLUX1)
    return randomise(comfy.ldm.flux.model.Flux(**settings, **MADE))


def family_flux1() -> dict[str, Any]:
    return flux_like(flux1(), LATENTS.clone(), POOLED, GUIDANCE)


def family_flux2() -> dict[str, Any] | None:
    settings = taken(comfy.ldm.flux.model.FluxParams, FLUX2)
    if settings.keys() != FLUX2.keys():
        return None
    return flux_like(randomise(comfy.ldm.flux.model.Flux(**settings, **MADE)), normal(2, 128, 2, 3))


def family_chroma() -> dict[str, Any]:
    settings = taken(comfy.ldm.chroma.model.ChromaParams, CHROMA)
    model = randomise(comfy.ldm.chroma.model.Chroma(**settings, **MADE))
    return flux_like(model, LATENTS.clone(), GUIDANCE)


def family_flux1_by_ours() -> dict[str, Any]:
    """Our forward over the host's tree, compared with the host's own besides."""
    ours, model, x = erase_core("models.flux1.forward"), flux1(), LATENTS.clone()
    cond = ours.Conditioning(CONTEXT, POOLED)
    asked = {"input": Rows(x), **thirds("text", model.double_blocks[0].txt_attn.qkv.weight)}
    found = told(lambda: slopes(lambda: ours.velocity(model, x, SIGMA, cond, 3.5), asked))
    with torch.no_grad():
        theirs = model(x.clone(), SIGMA, CONTEXT.clone(), POOLED, GUIDANCE)
        difference = (ours.velocity(model, x, SIGMA, cond, 3.5) - theirs).abs().max()
    return found | {"difference": float(difference / theirs.abs().max())}


def erase_core(name: str) -> ModuleType:
    """A module of ours; the repository stays off the path, where its ``nodes`` hide the host's."""
    place = PACKAGE / "erase_core" / "__init__.py"
    spec = importlib.util.spec_from_file_location("erase_core", place)
    assert spec is not None and spec.loader is not None
    sys.modules["erase_core"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return importlib.import_module(f"erase_core.{name}")


def main() -> None:
    torch.set_num_threads(1)
    comfy.model_management.in_training = True
    families: dict[str, Callable[[], Any]] = {
        name.removeprefix("family_"): function
        for name, function in globals().items()
        if name.startswith("family_")
    }
    OUT.write_text(json.dumps({name: measure() for name, measure in families.items()}, indent=1))


main()
