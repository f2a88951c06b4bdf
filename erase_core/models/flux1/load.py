"""Loading a Flux transformer from BFL's or diffusers' safetensors, and refusing all else plainly.

Files are memory-mapped and their tensors assigned to a tree without storage, so that memory never
holds more than the weights. Nothing is unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import EraseError
from ...files import existing, read_json, weight_files
from ...tensors import read_tensors
from ..frozen import FrozenLinear, put, unscale
from .config import HEAD_DIM, FluxConfig
from .names import diffusers_to_bfl, skeleton, tree_keys
from .tree import Flux

_ADVICE = "choose a FLUX.1-dev or FLUX.1-schnell transformer in safetensors format"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PREFIXES = ("model.diffusion_model.", "diffusion_model.")

# First bytes of files that are not safetensors.
_MAGIC = {
    b"GGUF": "a GGUF file, whose quantised weights cannot be trained on",
    b"PK\x03\x04": "a PyTorch pickle, which could run any program",
    b"\x80": "a PyTorch pickle, which could run any program",
}
# Keys that give other models away, tried in this order.
_FOREIGN = (
    (r"lora_(A|B|up|down|unet)", "a LoRA"),
    (r"(^|\.)(qweight|absmax|quant_map)$", "quantised to integers"),
    (r"^distilled_guidance_layer\.", "a Chroma model"),
    (r"^double_stream_modulation_img\.", "a FLUX.2 model"),
    (r"img_attn_qkv", "a HunyuanVideo model"),
    (r"controlnet", "a ControlNet"),
    (r"^redux_", "a FLUX.1 Redux adapter"),
    (r"^(label_emb|add_embedding)\.", "a Stable Diffusion XL model"),
    (r"^(joint_blocks|pos_embed\.proj)\.", "a Stable Diffusion 3 model"),
    (r"^(input_blocks|down_blocks)\.", "a Stable Diffusion 1 or 2 model"),
    (r"^(head\.modulation$|condition_embedder\.)", "a Wan model"),
    (r"^(text_model|shared|encoder\.block|text_encoders)\.", "a text encoder"),
    (r"^(encoder|decoder|taesd_encoder)\.", "an autoencoder (VAE)"),
)
_INPUTS = {384: "FLUX.1 Fill", 128: "FLUX.1 Depth or Canny"}


def load_flux(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Flux, FluxConfig]:
    """Load a FLUX.1 transformer of any size, without gradients.

    Parameters
    ----------
    path
        A BFL file (bare keys, or a full checkpoint's ``model.diffusion_model.``), a diffusers file
        or a diffusers folder (its ``transformer`` folder included), sharded or not.
    device
        Where the weights go. On the CPU and with an unchanged dtype they stay mapped to the file.
    dtype
        Cast all weights. None keeps the file's: fp8 matrices, scaled or not, stay fp8 and are
        widened at every use; norms and biases become bfloat16.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised, or another model than a text-to-image Flux.
    """
    path = Path(path)
    state, scales = read_flux(path, dtype)
    config = _config(path, state)
    tree = skeleton(config).requires_grad_(False)
    _check_keys(path, tree, state)
    state = _cast(state, torch.device(device), dtype)
    _widen_at_use(tree, state, scales)
    tree.load_state_dict(state, assign=True)
    return tree, config


def read_flux(
    path: Path, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors of a file or folder under our tree's keys, mapped, not yet compared with them,
    and the scale of every fp8 module that has one; with ``dtype`` these are multiplied out.

    Raises
    ------
    EraseError
        When the file is missing, damaged, quantised to integers, or of another architecture.
    """
    state, metadata = _read(path)
    _refuse_kontext(path, metadata)
    state = _strip_prefix(state)
    _refuse_foreign(path, state)
    state, scales = unscale(path.name, state, _ADVICE)
    stacked = "x_embedder.weight" in state
    if dtype is not None or stacked:  # rows of one matrix of ours had scales of their own
        for module in scales:
            weight = state[f"{module}.weight"].float() * scales[module]
            state[f"{module}.weight"] = weight.to(dtype or torch.bfloat16)
        scales = {}
    try:
        return tree_keys(diffusers_to_bfl(state) if stacked else state), scales
    except (RuntimeError, IndexError) as error:  # of torch.cat, and of halves of a scalar
        raise EraseError(f"{path.name} has matrices that do not go together; {_ADVICE}.") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, mapped, and the metadata of a file or of a folder's shards."""
    state: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in _shards(path) if os.path.isdir(path) else [path]:
        _refuse_magic(file)
        tensors, about = read_tensors(file)
        state |= tensors
        metadata |= about
    return state, metadata


def _shards(folder: Path) -> list[Path]:
    """The weight files of a diffusers folder."""
    for place in (folder, folder / "transformer"):
        if files := weight_files(place, _WEIGHTS):
            return files
    raise EraseError(f"There is no {_WEIGHTS} in {folder}; {_ADVICE} or its diffusers folder.")


def _refuse_magic(path: Path) -> None:
    try:
        with open(existing(path), "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise EraseError(f"Cannot read {path} ({error.strerror}); check the path.") from error
    for magic, what in _MAGIC.items():
        # A safetensors file may begin so by chance: its length comes first, its JSON at byte 8.
        if start.startswith(magic) and start[8:] != b"{":
            raise EraseError(f"{path.name} is {what}; {_ADVICE}.")


def _refuse_kontext(path: Path, metadata: dict[str, str]) -> None:
    """Kontext has dev's very keys: only its name tells it apart."""
    told = [path.name, *(v for k, v in metadata.items() if re.search("title|name|architecture", k))]
    for index in (path / "model_index.json", path.parent / "model_index.json"):
        if index.is_file():
            told.append(str(read_json(index)))
    if any("kontext" in text.lower() for text in told):
        raise EraseError(f"{path.name} is FLUX.1 Kontext, which edits pictures; {_ADVICE}.")


def _strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's part of a full checkpoint, under bare keys."""
    for prefix in _PREFIXES:
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner
    return state


def _refuse_foreign(path: Path, keys: Iterable[str]) -> None:
    keys = list(keys)
    for pattern, what in _FOREIGN:
        if any(re.search(pattern, key) for key in keys):
            raise EraseError(f"{path.name} is {what}; {_ADVICE}.")


def _config(path: Path, state: dict[str, Tensor]) -> FluxConfig:
    """The sizes of the transformer; EraseError when it is none or takes more than noisy latents."""
    try:
        config = FluxConfig.from_shapes({key: tuple(value.shape) for key, value in state.items()})
    except EraseError as error:
        raise EraseError(f"{path.name}: {error}") from error
    if config.in_channels != 64:
        what = _INPUTS.get(config.in_channels, f"a Flux with {config.in_channels} input channels")
        raise EraseError(f"{path.name} is {what}, which takes more than a prompt; {_ADVICE}.")
    if config.hidden_size % HEAD_DIM or not config.hidden_size:
        raise EraseError(
            f"{path.name} is {config.hidden_size} wide, not a multiple of {HEAD_DIM}; {_ADVICE}."
        )
    return config


def key_problems(tree: Flux, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Keys that a state lacks, has too many, or has in the wrong shape, compared one by one."""
    expected = tree.state_dict()
    return {
        "lacks": [key for key in expected if key not in state],
        "has beyond Flux's": [key for key in state if key not in expected],
        "has in the wrong shape": [
            key for key in expected if key in state and state[key].shape != expected[key].shape
        ],
    }


def _check_keys(path: Path, tree: Flux, state: dict[str, Tensor]) -> None:
    problems = key_problems(tree, state)
    found = [f"{what} {len(keys)} tensors ({keys[0]})" for what, keys in problems.items() if keys]
    if found:
        raise EraseError(f"{path.name} {' and '.join(found)}; {_ADVICE}.")


def _cast(
    state: dict[str, Tensor], device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Move and cast one tensor after another; fp8 matrices keep their dtype unless one is given.

    Float16 becomes bfloat16: Flux's residuals are beyond its range, and losses' gradients below it.
    """
    first = state["img_in.weight"].dtype
    working = dtype or (torch.float32 if first == torch.float32 else torch.bfloat16)
    cast = {}
    for key in list(state):
        tensor = state.pop(key)
        keep = dtype is None and tensor.dtype.itemsize == 1 and tensor.ndim > 1
        cast[key] = tensor.to(device=device, dtype=tensor.dtype if keep else working)
    return cast


def _widen_at_use(tree: Flux, state: dict[str, Tensor], scales: dict[str, float]) -> None:
    """Put a FrozenLinear, still without storage, wherever the weight is fp8."""
    for name, module in list(tree.named_modules()):
        if isinstance(module, nn.Linear) and state[f"{name}.weight"].dtype.itemsize == 1:
            cast = FrozenLinear(module.in_features, module.out_features, device="meta")
            cast.scale = scales.get(name, 1.0)
            put(tree, name, cast)
