"""A ComfyUI MODEL as a model of the core, whatever its family.

A MODEL is never changed: a family's file makes a frame whose layers call the host's, whatever holds
their weights (inference tensors, fp8, evictable buffers, LoRAs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import comfy.model_management
import torch

from ...erase_core.errors import EraseError
from ...erase_core.miniatures import miniflux
from ...erase_core.models.base import PATCHED, Model, Sizes, TextEncoder
from ...erase_core.models.family import published
from ...erase_core.models.files import read_presets
from ...erase_core.registry import collect
from .base import BASE, Host, base_file, base_name

__all__ = ["BASE", "base_name"]  # of .base, for the nodes


@lru_cache(maxsize=1)
def hosts() -> tuple[Host, ...]:
    """The families that this package knows in the host, file after file."""
    return tuple(collect(__package__ or "", "HOSTS", Host).values())


def host_of(model: Any) -> Host:
    """The family of a MODEL; EraseError when the core knows none that it is of."""
    known = hosts()
    for host in known:
        if host.owns(model):
            return host
    kind = type(getattr(model.model, "model_config", model.model)).__name__
    labels = " or ".join(host.family.label for host in known)
    names = published(host.family for host in known)
    raise EraseError(f"This MODEL is {kind}, not {labels}; connect a {names} text-to-image model.")


def filled_to(model: Any) -> int:
    """To how many text tokens the host fills the prompts of any MODEL up, on their left."""
    return next((host.fills for host in hosts() if host.owns(model)), 0)


def sizes(model: Any) -> Sizes:
    """The sizes of a MODEL; EraseError unless it turns a prompt into a picture and is of a family
    that the core knows."""
    return host_of(model).sizes(model)


def open_model(model: Any, clip: Any) -> Model:
    """MODEL and CLIP as a model of the core; :func:`load` the MODEL before it is used, and again
    after anything else was loaded.

    EraseError when they do not belong together, or the MODEL cannot be trained through.
    """
    host = host_of(model)
    config, file = host.sizes(model), base_file(model)
    family, small = host.family.of(file), is_miniature(config)
    return Model(
        family=family,
        tree=host.tree(model, config),
        config=config,
        text=host.text(clip, config),
        vae=None,
        name=base_name(model),
        sha256="",
        file=file,
        size=miniflux.SIZE if small else family.size,
        trained=None if small else family.trained,
        shift_mu=host.shift(model),
        presets=read_presets(file) if file else {},
        weights=_weights(model, clip),
    )


def _weights(model: Any, clip: Any) -> str:
    """How a MODEL's weights are kept and computed with, or PATCHED: by LoRAs, of the CLIP too, or
    by what a node has put in the place of its parts."""
    patched = ("patches", "weight_wrapper_patches", "hook_patches", "forced_hooks")
    told = {"model_sampling", "manual_cast_dtype"}  # by the settings, and below
    for patcher in (model, clip.patcher):
        if any(getattr(patcher, name, None) for name in patched):
            return PATCHED
        if set(patcher.object_patches) - told:
            return PATCHED
    if getattr(clip, "layer_idx", None) is not None:  # CLIP Set Last Layer
        return PATCHED
    kept = model.model.get_dtype()
    computing = model.get_model_object("manual_cast_dtype") or kept
    return f"{kept} as {computing}".replace("torch.", "")


def text_encoder(model: Any, clip: Any) -> TextEncoder:
    """The CLIP as the core's encoder; EraseError when it is not the MODEL's."""
    host = host_of(model)
    return host.text(clip, host.sizes(model))


def picture_size(model: Any, width: int, height: int) -> tuple[int, int]:
    """(height, width) in pixels; 0 stands for what suits the model."""
    host = host_of(model)
    own = miniflux.SIZE if is_miniature(host.sizes(model)) else host.family.size
    return height or own[0], width or own[1]


def is_miniature(config: Sizes) -> bool:
    """Whether a MODEL has the sizes of the bundled one rather than of any that is published."""
    return config.hidden_size < 3072 and config.depth < 4


def noise(model: Any, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
    """Start latents of a MODEL, one for each seed: (N, C, h, w) on the CPU; ``size`` is (height,
    width) in pixels."""
    return host_of(model).family.latents.noise(seeds, *size)


def load(model: Any, batch: int = 1, size: tuple[int, int] = (512, 512)) -> None:
    """Bring a MODEL, with its LoRAs, to where it computes; others make room if they must.

    ``size`` is (height, width) in pixels. The memory kept free beside the weights is the host's own
    guess for sampling, three times over for training's backward pass.
    """
    shape = host_of(model).family.latents.shape(*size)
    needed = model.memory_required([batch, *shape])
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
