"""A node pack for tests alone: the host's own model classes at toy size, and an encoder of words.

The models' weights are random but fixed, float32. ``ToyEuler`` draws by the book: the host's plain
``apply_model``, an Euler loop and DVE's formula written out here, none of our code.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import comfy.controlnet
import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models as supported
import folder_paths
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.flux.controlnet import ControlNetFlux
from comfy.ldm.flux.model import FluxParams
from comfy.supported_models_base import ClipTarget
from safetensors.torch import save_file
from torch import Tensor

WIDTH, TEXT, LENGTH = 256, 32, 12
FLUX1: dict[str, Any] = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 16,
    "context_in_dim": TEXT, "hidden_size": WIDTH, "mlp_ratio": 2.0, "num_heads": 2, "depth": 2,
    "depth_single_blocks": 2, "axes_dim": [16, 56, 56], "theta": 10_000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = FLUX1 | {
    "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None,
    "axes_dim": [32] * 4, "theta": 2000, "patch_size": 1, "qkv_bias": False,
    "guidance_embed": False, "txt_ids_dims": [3], "global_modulation": True,
    "mlp_silu_act": True, "ops_bias": False,
}  # fmt: skip
CHROMA = FLUX1 | {
    "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64,
    "out_dim": WIDTH, "hidden_dim": 32, "n_layers": 1,
}  # fmt: skip
CHROMA.pop("guidance_embed")
SD3: dict[str, Any] = {
    "input_size": None, "in_channels": 16, "depth": 2, "num_patches": 64, "pos_embed_max_size": 8,
    "pos_embed_scaling_factor": None, "adm_in_channels": 16, "qk_norm": "rms",
    "x_block_self_attn_layers": [0],
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": 128},
    },
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "num_layers": 2, "num_attention_heads": 2,
    "joint_attention_dim": TEXT, "in_channels": 64, "out_channels": 16,
}  # fmt: skip
Z_IMAGE = {
    "image_model": "lumina2", "in_channels": 16, "dim": WIDTH, "n_layers": 2,
    "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "ffn_dim_multiplier": 1.0,
    "qk_norm": True, "cap_feat_dim": TEXT, "axes_dims": [32, 48, 48], "rope_theta": 256.0,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
AURA = {
    "dim": WIDTH, "n_layers": 3, "n_double_layers": 1, "n_heads": 2, "global_conddim": WIDTH,
    "cond_seq_dim": TEXT, "max_seq": 64,
}  # fmt: skip
SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [1, 1], "transformer_depth": [1, 1], "transformer_depth_output": [1] * 4,
    "transformer_depth_middle": 1, "channel_mult": [1, 2], "context_dim": TEXT, "num_heads": 2,
    "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "flux1": ("Flux", FLUX1),
    "chroma": ("Chroma", CHROMA),
    "flux2": ("Flux2", FLUX2),
    "sd3": ("SD3", SD3),
    "qwen_image": ("QwenImage", QWEN),
    "z_image": ("ZImage", Z_IMAGE),
    "aura_flow": ("AuraFlow", AURA),
    "sd15": ("SD15", SD15),
}
FAMILIES = {name: row for name, row in FAMILIES.items() if hasattr(supported, row[0])}
PARAMS = {"flux1": FluxParams, "flux2": FluxParams, "chroma": ChromaParams}
POOLED = ("flux1", "sd3")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fill(tree: Any) -> None:
    """Random weights, each by its name."""
    tensors = [*tree.named_parameters()]
    tensors += [item for item in tree.named_buffers() if item[0] == "pos_embed"]
    for name, tensor in tensors:
        noise = normal(zlib.crc32(name.encode()), *tensor.shape)
        if tensor.ndim > 1:
            tensor.data.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
        else:
            tensor.data.copy_(noise * 0.1 + (1.0 if "norm" in name else 0.0))
    tree.requires_grad_(False)


def build(family: str, **changes: Any) -> Any:
    """A MODEL of random weights."""
    name, sizes = FAMILIES[family]
    sizes = sizes | changes
    if family in PARAMS:  # older hosts have fewer
        known = {"image_model", *(field.name for field in fields(PARAMS[family]))}
        sizes = {key: value for key, value in sizes.items() if key in known}
    config = getattr(supported, name)(dict(sizes))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    fill(model.diffusion_model)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))


class Words:
    """A CLIP that knows one random vector a word."""

    def __init__(self, family: str, width: int = TEXT) -> None:
        self.family, self.width = family, width

    def tokenize(self, text: str, **_: Any) -> dict[str, Any]:
        words = text.replace("\\", "").split()[:LENGTH]
        words += ["<pad>"] * (LENGTH - len(words))
        return {"toy": [[(zlib.crc32(word.encode()), 1.0) for word in words]]}

    def encode_from_tokens_scheduled(self, tokens: dict[str, Any], **_: Any) -> list[Any]:
        ids = [token for token, _ in tokens["toy"][0]]
        states = torch.stack([normal(token, self.width) for token in ids])[None]
        more = {"pooled_output": None}
        if self.family in POOLED:
            more["pooled_output"] = torch.stack([normal(i, 16) for i in ids]).mean(0)[None]
        return [[states, more]]


class ToyModel:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "CLIP"), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"family": (list(FAMILIES),)}}

    def make(self, family: str) -> tuple[Any, Any]:
        return build(family), Words(family)


class ToyClip:
    """A CLIP of another width."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CLIP",), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"width": ("INT", {"default": 8})}}

    def make(self, width: int) -> tuple[Any]:
        return (Words("", width),)


class ToyKlein:
    """A FLUX.2 klein that can be trained on: MODEL, CLIP with the host's tokenizer, and a VAE."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "CLIP", "VAE"), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def make(self) -> tuple[Any, Any, Any]:
        from comfy.text_encoders.flux import KleinTokenizer, klein_te

        clip = qwen(ClipTarget(KleinTokenizer, klein_te()))
        return build("flux2", context_in_dim=96), clip, ToyVae(128, 16)


class ToyZImage(ToyKlein):
    """The same of Z-Image."""

    def make(self) -> tuple[Any, Any, Any]:
        from comfy.text_encoders.z_image import ZImageTokenizer, te

        return build("z_image"), qwen(ClipTarget(ZImageTokenizer, te())), ToyVae(16, 8)


class ToyQwenImage(ToyKlein):
    """The same of Qwen-Image."""

    def make(self) -> tuple[Any, Any, Any]:
        from comfy.text_encoders import qwen_image, qwen_vl

        eyes = qwen_vl.Qwen2VLVisionTransformer
        qwen_vl.Qwen2VLVisionTransformer = partial(eyes, num_layers=1)  # of 32
        try:
            target = ClipTarget(qwen_image.QwenImageTokenizer, qwen_image.te())
            clip = qwen(target, "qwen25_7b", num_hidden_layers=1)
        finally:
            qwen_vl.Qwen2VLVisionTransformer = eyes
        return build("qwen_image"), clip, ToyVae(16, 8)


class ToySD3(ToyKlein):
    """The same of Stable Diffusion 3.5, of pictures of 64 px at most."""

    def make(self) -> tuple[Any, Any, Any]:
        from comfy.text_encoders.sd3_clip import SD3Tokenizer, sd3_clip

        clip = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3}
        clip |= {"num_attention_heads": 1}
        t5 = {"d_ff": 32, "num_heads": 1, "num_layers": 1}
        sizes = {"clip_l": clip, "clip_g": clip, "t5xxl": t5}
        options = {f"{name}_model_config": size for name, size in sizes.items()}
        target = ClipTarget(SD3Tokenizer, sd3_clip())
        made = comfy.sd.CLIP(target, model_options=options | {"dtype": torch.float32})
        for name in sizes:
            fill(getattr(made.cond_stage_model, name).transformer)
        params = {"in_features": 4096, "out_features": 128}
        embedder = SD3["context_embedder_config"] | {"params": params}
        model = build("sd3", adm_in_channels=128, context_embedder_config=embedder)
        return model, made, ToyVae(16, 8)


def qwen(target: ClipTarget, name: str = "qwen3_4b", **more: int) -> Any:
    """A CLIP with a small Qwen of random weights."""
    sizes = {side: 32 for side in ("hidden_size", "intermediate_size")}
    sizes |= {"num_hidden_layers": 28, "num_attention_heads": 1, "num_key_value_heads": 1} | more
    options = {f"{name}_model_config": sizes, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, model_options=options)
    fill(getattr(clip.cond_stage_model, name).transformer)
    return clip


class ToyVae:
    """Pictures of ``scale`` px a latent, by one random matrix; of films the first one."""

    def __init__(self, channels: int, scale: int) -> None:
        self.scale = scale
        self.matrix = normal(3, 3 * scale**2, channels) / channels**0.5

    def decode(self, latents: Tensor) -> Tensor:
        if latents.ndim == 5:
            return self.decode(latents[:, :, 0])[:, None]
        wide = torch.einsum("oc,nchw->nohw", self.matrix, latents)
        return torch.nn.functional.pixel_shuffle(wide, self.scale).sigmoid().movedim(1, -1)


class ToyPrompts:
    """Lines of a text as the rows of one CONDITIONING."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip": ("CLIP",), "text": ("STRING", {"multiline": True})}}

    def make(self, clip: Any, text: str) -> tuple[Any]:
        return (rows(clip, text),)


def rows(clip: Any, text: str) -> Any:
    lines = [clip.encode_from_tokens_scheduled(clip.tokenize(line))[0] for line in text.split("\n")]
    pooled = [more["pooled_output"] for _, more in lines]
    joined = None if pooled[0] is None else torch.cat(pooled)
    return [[torch.cat([states for states, _ in lines]), {"pooled_output": joined}]]


class ToyLatent:
    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "batch": ("INT", {"default": 1}),
                "seed": ("INT", {"default": -1}),
            },
            "optional": {"masked": ("BOOLEAN", {"default": False}), "after": ("LATENT",)},
        }

    def make(
        self, model: Any, batch: int, seed: int, masked: bool = False, after: Any = None
    ) -> tuple[Any]:
        """Nothing yet, or (with a seed) something; ``masked``: its left half stays. ``after`` is
        what must be drawn before."""
        form = model.model.latent_format
        shape = (batch, form.latent_channels, *([1] if form.latent_dimensions == 3 else []), 8, 6)
        latent = {"samples": torch.zeros(shape) if seed < 0 else normal(seed, *shape)}
        if masked:
            latent["noise_mask"] = (torch.arange(6) >= 3).float().expand(1, 1, 8, 6)
        return (latent,)


class ToyControl:
    """A CONTROL_NET of the host's for the toy FLUX.1, of random weights."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONTROL_NET",), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def make(self) -> tuple[Any]:
        known = {"image_model", *(field.name for field in fields(FluxParams))}
        sizes = {key: value for key, value in FLUX1.items() if key in known}
        control = ControlNetFlux(
            operations=comfy.ops.disable_weight_init, dtype=torch.float32, device="cpu", **sizes
        )
        fill(control)
        device = comfy.model_management.get_torch_device()
        more = {"load_device": device, "extra_conds": ["y", "guidance"]}
        return (comfy.controlnet.ControlNet(control, **more),)


class ToySave:
    """Writes latents to the output folder, and the hash of a MODEL's weights into the history."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "save", "tests", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model": ("MODEL",), "latent": ("LATENT",), "name": ("STRING", {})},
        }

    def save(self, model: Any, latent: Any, name: str) -> dict[str, Any]:
        path = Path(folder_paths.get_output_directory()) / f"{name}.safetensors"
        save_file({"samples": latent["samples"].clone().contiguous()}, path)
        digest = hashlib.sha256()
        for key, tensor in model.model.diffusion_model.state_dict().items():
            digest.update(key.encode() + tensor.numpy().tobytes())
        hooks = sum(len(m._forward_hooks) for m in model.model.modules())
        return {"ui": {"hash": [digest.hexdigest()], "hooks": [hooks]}}


class ToyEuler:
    """Draws with a plain MODEL, and with DVE's formula where there is a concept."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "draw", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"default": ""})
        return {
            "required": {
                "model": ("MODEL",), "clip": ("CLIP",), "latent": ("LATENT",),
                "prompt": ("STRING", {"multiline": True}), "negative": text,
                "cfg": ("FLOAT", {"default": 1.0}), "seed": ("INT", {"default": 0}),
                "steps": ("INT", {"default": 4}), "concept": text, "anchor": text,
                "strength": ("FLOAT", {"default": 1.0}),
            },
            "optional": {
                "least": ("FLOAT", {"default": 0.0}), "every": ("INT", {"default": 1}),
            },
        }  # fmt: skip

    def draw(self, model: Any, clip: Any, latent: Any, **told: Any) -> tuple[Any]:
        comfy.model_management.load_models_gpu([model])
        samples = latent["samples"]
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", told["steps"])
        noise = comfy.sample.prepare_noise(samples, told["seed"])
        x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
        texts = ("prompt", "negative", "concept", "anchor")
        predict = {name: predictor(model.model, clip, told[name], x) for name in texts}
        least, every, lines = (
            told.get("least", 0.0),
            told.get("every", 1),
            told["prompt"].split("\n"),
        )
        slope = {}
        for index, (sigma, after) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
            t = sigma.expand(len(x))
            fresh = ("concept", "anchor") if told["concept"] and index % every == 0 else ()
            slope |= {
                name: (x - predict[name](x, t)) / sigma
                for name in ("prompt", *fresh, *(("negative",) if told["cfg"] != 1 else ()))
            }
            v = slope["prompt"].clone()
            if told["cfg"] != 1:
                v = slope["negative"] + told["cfg"] * (v - slope["negative"])
            if told["concept"]:
                for row in range(len(x)):
                    if least and told["concept"] not in lines[row % len(lines)]:
                        continue
                    d = slope["concept"][row] - slope["anchor"][row]
                    share = ((v[row] - slope["anchor"][row]) * d).sum() / (d * d).sum()
                    v[row] = v[row] - told["strength"] * max(float(share), least) * d
            x = x + (after - sigma) * v
        return ({"samples": model.model.process_latent_out(x)},)


def predictor(model: Any, clip: Any, text: str, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """``x_0`` as a model predicts it from a prompt, its lines the rows."""
    ((states, more),) = rows(clip, text)
    conds = model.extra_conds(cross_attn=states, noise=x, device=x.device, **more)
    inputs = {name: cond.process_cond(len(x), area=None).cond for name, cond in conds.items()}
    return lambda x, sigma: model.apply_model(x, sigma, **inputs)


NODE_CLASS_MAPPINGS = {
    made.__name__: made
    for made in (
        ToyModel,
        ToyKlein,
        ToyZImage,
        ToyQwenImage,
        ToySD3,
        ToyClip,
        ToyPrompts,
        ToyLatent,
        ToyControl,
        ToySave,
        ToyEuler,
    )
}
