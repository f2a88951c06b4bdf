"""The host's objects as the core wants them: a Flux tree, a text encoder, pictures, file names.

A MODEL is never changed: :func:`flux_tree` is a frame with the core's own names whose layers call
the host's, whatever holds their weights (inference tensors, fp8, evictable buffers, LoRAs).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import comfy.sample
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from PIL import Image
from torch import Tensor, nn

from ..erase_core.errors import EraseError
from ..erase_core.files import sha256
from ..erase_core.flux.config import FluxConfig
from ..erase_core.flux.forward import Conditioning
from ..erase_core.flux.model import Flux
from ..erase_core.flux.names import skeleton
from ..erase_core.flux.sampling import noise
from ..erase_core.text.spans import token_mask

CATEGORY = "EraseAnything"
MODELS, OUTPUT = "models/loras", "output/loras"
BASE = "eraseanything_base"  # a MODEL's attachment: its file
ADVICE = "connect a FLUX.1-dev or FLUX.1-schnell text-to-image model"
_OFFLOADABLE = "offloadable" in inspect.signature(comfy.ops.cast_bias_weight).parameters


def aliases(*words: str) -> dict[str, list[str]]:
    """Search words for a node's schema, where the host knows them (not yet in 0.3.64)."""
    known = inspect.signature(io.Schema).parameters
    return {"search_aliases": list(words)} if "search_aliases" in known else {}


def seed(most: int, tooltip: str, **more: Any) -> Any:
    """A seed that stays as it is: the host would else draw a new one, and train anew, every run."""
    return io.Int.Input(
        "seed", default=0, min=0, max=most, control_after_generate=False, tooltip=tooltip, **more
    )


def pixels_input(name: str) -> Any:
    """The "width" or the "height" of pictures."""
    tooltip = f"{name.capitalize()} in pixels. 0: what suits the model."
    return io.Int.Input(name, default=0, min=0, max=4096, step=16, tooltip=tooltip)


def steps_input() -> Any:
    """How many steps a picture takes."""
    return io.Int.Input("steps", default=28, min=1, max=1000, tooltip="Sampling steps.")


def guidance_input() -> Any:
    """The guidance input of distilled models."""
    tooltip = "Flux guidance (dev only)."
    return io.Float.Input("guidance", default=3.5, min=0.0, max=100.0, step=0.1, tooltip=tooltip)


def name_input(default: str, more: str = "") -> Any:
    """What a saved file is called."""
    tooltip = f"Name of the LoRA file, perhaps with a subfolder; a number is added.{more}"
    return io.String.Input("filename_prefix", default=default, tooltip=tooltip)


def folder_input() -> Any:
    """Which of the two folders of LoRAs a file goes to."""
    return io.Combo.Input(
        "folder",
        options=[MODELS, OUTPUT],
        default=MODELS,
        tooltip="Where the file goes. The LoRA list shows both folders.",
    )


# Models


def flux_config(model: Any) -> FluxConfig:
    """The sizes of a MODEL; EraseError unless it is a Flux that turns a prompt into a picture."""
    inner = model.model
    kind = type(getattr(inner, "model_config", inner)).__name__
    flux2 = getattr(comfy.model_base, "Flux2", ())
    if not isinstance(inner, comfy.model_base.Flux) or isinstance(inner, flux2):
        raise EraseError(f"This MODEL is {kind}, not FLUX.1; {ADVICE}.")
    blocks = getattr(inner.diffusion_model, "double_blocks", None)
    if blocks is None:
        raise EraseError(f"This MODEL hides its blocks (Nunchaku or the like); {ADVICE}.")
    weight = blocks[0].img_attn.qkv.weight  # img_in stays as it was in such files
    if weight is None or not weight.is_floating_point():
        raise EraseError(f"This MODEL has integer weights (GGUF or the like); {ADVICE}.")
    config = FluxConfig.from_tree(inner.diffusion_model)
    if config.in_channels != 64:
        raise EraseError(f"This MODEL takes more than a prompt (Fill, Depth or Canny); {ADVICE}.")
    if "kontext" in base_name(model).lower():
        raise EraseError(f"This MODEL is FLUX.1 Kontext, which edits pictures; {ADVICE}.")
    return config


def base_file(model: Any) -> Path | None:
    """The file that a MODEL was loaded from: as Load Flux says, else as far as the host does."""
    loader = getattr(model, "cached_patcher_init", None)
    path = model.get_attachment(BASE) or (loader[1][0] if loader and loader[1] else None)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def base_name(model: Any) -> str:
    """The stem of the MODEL's file, "flux" if it is unknown."""
    path = base_file(model)
    return "flux" if path is None else path.stem


def base_hash(model: Any) -> str:
    """SHA-256 of the MODEL's file, empty if it is unknown; a big file takes a minute, once."""
    path = base_file(model)
    return "" if path is None else _hash(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _hash(path: Path, changed: int) -> str:
    return sha256(path)


def flux_tree(model: Any) -> Flux:
    """A Flux with the core's names that computes with the MODEL's own layers and can be trained on.

    Load the MODEL with :func:`load` before it is used, and again after anything else was loaded.
    EraseError when it computes in float16: Flux's residuals are beyond its range, which the host's
    own forward clips, and gradients of the losses below it.
    """
    frame = skeleton(flux_config(model))
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    if dtype == torch.float16:
        raise EraseError(
            "On this card ComfyUI computes in float16, in which a Flux model cannot be trained; "
            "start ComfyUI with --bf16-unet, or with --fp32-unet."
        )
    inner = model.model.diffusion_model
    for name, module in list(frame.named_modules()):
        if isinstance(module, nn.Linear | nn.RMSNorm):
            wrapper = _Linear if isinstance(module, nn.Linear) else _Norm
            parent, _, child = name.rpartition(".")
            setattr(frame.get_submodule(parent), child, wrapper(inner.get_submodule(name)))
    frame.compute_device = model.load_device
    frame.compute_dtype = dtype
    return frame


def shift(model: Any) -> float | None:
    """The shift of the MODEL's noise schedule: FLUX.1-dev's mu; None for schnell, without one."""
    sampling = model.get_model_object("model_sampling")
    flux = isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
    return float(sampling.shift) if flux else None


def load(model: Any, batch: int = 1, size: tuple[int, int] = (512, 512)) -> None:
    """Bring a MODEL, with its LoRAs, to where it computes; others make room if they must.

    ``size`` is (height, width) in pixels. The memory kept free beside the weights is the host's own
    guess for sampling, three times over for training's backward pass.
    """
    needed = model.memory_required([batch, 16, size[0] // 8, size[1] // 8])
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], memory_required=3 * needed)


@contextmanager
def training() -> Iterator[None]:
    """Leave the executor's inference mode; give the host its memory back at the end."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        comfy.model_management.soft_empty_cache()


class _Linear(nn.Module):
    """A Linear of the host's that hands gradients to its input and wants none itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)  # in a tuple: its weights are not this tree's

    def forward(self, x: Tensor) -> Tensor:
        return _Frozen.apply(x, self._inner[0])


class _Frozen(torch.autograd.Function):
    """``module(x)`` without keeping a weight: it is asked for again in the backward pass.

    Autograd would keep the tensor that the host computed with. That may be an inference tensor,
    which it refuses, or a view of a buffer that holds another layer's weight by then.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any) -> Tensor:
        ctx.module = module
        weight = getattr(module, "weight", None)
        narrow = weight is not None and weight.dtype.itemsize == 1
        return module(x.clone() if narrow else x)  # the host's fp8 product clamps its input

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        with _weight(ctx.module, grad) as weight:
            return grad @ weight, None


class _Norm(nn.Module):
    """An RMS norm of the host's with a copy of its weight for autograd to keep (128 numbers)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = (inner,)

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self._inner[0]
        if hasattr(inner, "scale"):  # ComfyUI until autumn 2025
            return F.rms_norm(x, x.shape[-1:], inner.scale.to(x, copy=True), 1e-6)
        with torch.no_grad(), _weight(inner, x) as held:
            weight = held.clone()
        return F.rms_norm(x, x.shape[-1:], weight, inner.eps)


@contextmanager
def _weight(module: Any, like: Tensor) -> Iterator[Tensor]:
    """The weight that a host's layer computes with, on the device and in the dtype of ``like``."""
    if not _OFFLOADABLE:
        yield _plain(module, comfy.ops.cast_bias_weight(module, like)[0])
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        yield _plain(module, weight)
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _plain(module: Any, weight: Tensor) -> Tensor:
    """The numbers that a quantised weight stands for."""
    if type(weight) not in (Tensor, nn.Parameter):
        weight = weight.dequantize()
    scale = getattr(module, "scale_weight", None)  # scaled fp8 in ComfyUI until autumn 2025
    return weight if scale is None else weight * scale.to(weight)


# Text


class Text:
    """Encodes prompts with a CLIP of the host's and finds words in them, for the core.

    Prompts are taken as they stand: brackets are no weights. EraseError when the CLIP is not
    Flux's, or not that of a MODEL of these sizes.
    """

    def __init__(self, clip: Any, config: FluxConfig) -> None:
        t5 = getattr(clip.tokenizer, "t5xxl", None)
        if t5 is None or set(clip.tokenize("")) != {"l", "t5xxl"}:
            raise EraseError(
                "This CLIP is not Flux's CLIP-L and T5; load both with DualCLIPLoader, type flux, "
                "or take the CLIP of EraseAnything's Load Flux."
            )
        self.clip, self.config = clip, config
        self.tokenizer = t5.tokenizer
        self.length = len(clip.tokenize("")["t5xxl"][0])

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Context (B, length, context_in_dim) and pooled (B, vec_in_dim), float32 on the CPU."""
        cond = Conditioning.cat([self._encode(prompt) for prompt in prompts])
        sizes = cond.context.shape[-1], cond.pooled.shape[-1]
        if sizes != (self.config.context_in_dim, self.config.vec_in_dim):
            raise EraseError(
                "This CLIP belongs to another MODEL; MiniFlux and FLUX.1 each need their own."
            )
        return cond

    def _encode(self, prompt: str) -> Conditioning:
        tokens = self.clip.tokenize(prompt.replace("(", r"\(").replace(")", r"\)"))
        if len(tokens["t5xxl"]) > 1 or len(tokens["t5xxl"][0]) > self.length:
            raise EraseError(
                f'The prompt "{prompt[:60]}..." is longer than {self.length} T5 tokens; shorten it.'
            )
        with torch.inference_mode():
            context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        return Conditioning(context.float().cpu().clone(), pooled.float().cpu().clone())

    def token_mask(self, prompt: str, word: str) -> Tensor:
        """(length,) of 0 and 1: the T5 tokens of ``word``; EraseError when it is not there."""
        return token_mask(self.tokenizer, prompt, word, self.length)


def conditioning(cond: Conditioning, guidance: float) -> list[list[Any]]:
    """Encoded prompts as the host's CONDITIONING."""
    return [[cond.context, {"pooled_output": cond.pooled, "guidance": guidance}]]


def clip_words(clip: Any, texts: Sequence[str]) -> Tensor:
    """Texts as CLIP-L's joint space has them: (B, D), to be compared with pictures.

    EraseError when they cannot be told apart, for want of CLIP-L's projection into that space.
    """
    clip.load_model()
    encoder = clip.cond_stage_model
    encoder.reset_clip_options()
    encoder.set_clip_options(
        {"projected_pooled": True, "execution_device": clip.patcher.load_device}
    )
    rows = [encoder.clip_l.encode_token_weights(clip.tokenize(t)["l"])[1] for t in texts]
    encoder.reset_clip_options()
    found = torch.cat(rows).float().cpu()
    if not found.isfinite().all() or not found.any() or len(found.unique(dim=0)) < len(set(texts)):
        raise EraseError(
            "This CLIP-L file lacks its text projection (text_projection.weight), as the usual "
            "clip_l.safetensors does; give Erasure Report a CLIP whose CLIP-L is complete, such as "
            "the model.safetensors of openai/clip-vit-large-patch14."
        )
    return found


def clip_pictures(clip_vision: Any, images: Tensor, width: int) -> Tensor:
    """An IMAGE as a CLIP vision model's joint space has it: (B, width).

    EraseError when the space is of another width than CLIP-L's words have.
    """
    rows = [clip_vision.encode_image(part)["image_embeds"] for part in images.split(16)]
    found = torch.cat(rows).float().cpu()
    if found.shape[1] != width:
        raise EraseError(
            "This CLIP vision model does not belong to CLIP-L; choose clip-vit-large-patch14."
        )
    return found


# Pictures


def decode(model: Any, vae: Any, latents: Tensor) -> Tensor:
    """Latents as the MODEL sees them (B, 16, h, w) -> an IMAGE (B, H, W, 3) in [0, 1]."""
    with torch.inference_mode():
        images = vae.decode(model.model.latent_format.process_out(latents.float().cpu()))
    return _visible(images).clone()


def _visible(images: Tensor) -> Tensor:
    """What a VAE drew, in [0, 1] on the CPU; EraseError when there is nothing to be seen."""
    if not images.isfinite().all():
        raise EraseError(
            "The pictures are NaN: the model, a LoRA or the VAE is damaged, or a strength or the "
            "guidance is too high."
        )
    return images.float().cpu().clamp(0, 1)


def encode(model: Any, vae: Any, images: Tensor) -> Tensor:
    """An IMAGE (B, H, W, 3) -> latents as the MODEL sees them, on the CPU."""
    with torch.inference_mode():
        latents = vae.encode(images[..., :3])
    return model.model.latent_format.process_in(latents.float().cpu()).clone()


def draw(
    model: Any,
    vae: Any,
    cond: Conditioning,
    seeds: Sequence[int],
    size: tuple[int, int],
    steps: int,
    guidance: float,
    on_step: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Pictures as KSampler (euler, simple) and VAEDecode make them: an IMAGE (N, H, W, 3).

    One prompt and one seed a picture; ``size`` is (height, width) in pixels. ``on_step`` hears how
    many of the N * steps steps are done. Call it in the executor's inference mode.
    """
    height, width = size
    batch = min(32, max(1, 2**20 // (height * width)))
    images = []
    for start in range(0, len(seeds), batch):
        rows = range(start, min(start + batch, len(seeds)))
        positive = conditioning(cond.select(rows), guidance)
        noises = torch.cat([noise(seeds[row], 1, height, width) for row in rows])

        def tell(step: int, *_: Any, first: int = start, count: int = len(rows)) -> None:
            on_step(first * steps + (step + 1) * count)

        latents = comfy.sample.sample(
            model,
            noises,
            steps,
            1.0,
            "euler",
            "simple",
            positive,
            positive,  # not looked at with a guidance scale of 1
            torch.zeros_like(noises),
            callback=tell,
            disable_pbar=True,
            seed=seeds[start],
        )
        images.append(_visible(vae.decode(latents)))
    return torch.cat(images)


def picture_size(model: Any, width: int, height: int) -> tuple[int, int]:
    """(height, width) in pixels; 0 stands for what suits the model."""
    own = 128 if is_miniflux(flux_config(model)) else 1024
    return height or own, width or own


def is_miniflux(config: FluxConfig) -> bool:
    """Whether a MODEL has MiniFlux's sizes rather than FLUX.1's."""
    return config.hidden_size < FluxConfig().hidden_size and config.depth < 4


def to_pil(image: Tensor) -> list[Image.Image]:
    """An IMAGE (B, H, W, 3) as pictures."""
    return [Image.fromarray(rows.numpy()) for rows in (image.cpu() * 255).round().byte()]


def to_image(*pictures: Image.Image) -> Tensor:
    """Pictures of one size as an IMAGE (B, H, W, 3) in [0, 1]."""
    rows = [
        torch.frombuffer(bytearray(p.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
            p.height, p.width, 3
        )
        for p in pictures
    ]
    return torch.stack(rows).float() / 255


# Files


def lora_folder(place: str) -> Path:
    """The folder behind MODELS or OUTPUT; the host's LoRA list shows both."""
    if place == OUTPUT:
        return Path(folder_paths.get_output_directory()) / "loras"
    return Path(folder_paths.get_folder_paths("loras")[0])


def inside(folder: Path, name: str) -> Path:
    """``name``, perhaps with subfolders, in ``folder``; EraseError when it would lead out of it."""
    plain = name.strip().replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if not parts or plain.startswith("/") or ".." in parts or ":" in plain or "\0" in plain:
        raise EraseError(
            f'"{name}" is no name for a file in {folder}; write one such as erasers/tiger, '
            "without .. and without a drive."
        )
    return folder.joinpath(*parts)


def free_name(folder: Path, prefix: str) -> Path:
    """``folder/prefix_00001.safetensors`` with the first number that no file has yet.

    EraseError when ``prefix`` leads out of the folder.
    """
    stem = inside(folder, prefix)
    files = stem.parent.glob("*.safetensors")
    # Windows and macOS do not tell "Tiger" from "tiger".
    taken = {path.name[: len(stem.name) + 6].casefold() for path in files}
    number = next(n for n in range(1, 100_000) if f"{stem.name}_{n:05}".casefold() not in taken)
    return stem.with_name(f"{stem.name}_{number:05}.safetensors")


def lora_name(path: Path) -> str:
    """A saved file as the host's LoRA list names it."""
    for folder in (lora_folder(MODELS), lora_folder(OUTPUT)):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
