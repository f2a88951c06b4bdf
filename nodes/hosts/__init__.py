"""A ComfyUI MODEL as a model of the core, whatever its family.

A MODEL is never changed: a family's file makes a frame whose layers call the host's, whatever holds
their weights (inference tensors, fp8, evictable buffers, LoRAs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ...erase_core.errors import EraseError
from ...erase_core.miniatures import miniflux
from ...erase_core.models.base import Model, TextEncoder
from ...erase_core.models.files import read_presets
from ...erase_core.models.flux1.config import FluxConfig
from . import flux1

BASE = "eraseanything_base"  # a MODEL's attachment: its file
TRAINED, DRAWN = (512, 512), (1024, 1024)  # pixels of FLUX.1's pictures


def sizes(model: Any) -> FluxConfig:
    """The sizes of a MODEL; EraseError unless it turns a prompt into a picture and is of a family
    that the core knows."""
    config = flux1.sizes(model)
    if "kontext" in base_name(model).lower():
        raise EraseError(f"This MODEL is FLUX.1 Kontext, which edits pictures; {flux1.ADVICE}.")
    return config


def open_model(model: Any, clip: Any) -> Model:
    """MODEL and CLIP as a model of the core; :func:`load` the MODEL before it is used, and again
    after anything else was loaded.

    EraseError when they do not belong together, or the MODEL cannot be trained through.
    """
    config = sizes(model)
    small, file = is_miniature(config), base_file(model)
    return Model(
        family=flux1.FAMILY,
        tree=flux1.tree(model, config),
        config=config,
        text=text_encoder(model, clip),
        vae=None,
        name=base_name(model),
        sha256="",
        file=file,
        size=miniflux.SIZE if small else DRAWN,
        trained=None if small else TRAINED,
        shift_mu=flux1.shift(model),
        presets=read_presets(file) if file else {},
    )


def text_encoder(model: Any, clip: Any) -> TextEncoder:
    """The CLIP as the core's encoder; EraseError when it is not the MODEL's."""
    return flux1.Text(clip, sizes(model))


def picture_size(model: Any, width: int, height: int) -> tuple[int, int]:
    """(height, width) in pixels; 0 stands for what suits the model."""
    own = miniflux.SIZE if is_miniature(sizes(model)) else DRAWN
    return height or own[0], width or own[1]


def is_miniature(config: FluxConfig) -> bool:
    """Whether a MODEL has MiniFlux's sizes rather than FLUX.1's."""
    return config.hidden_size < flux1.FULL.hidden_size and config.depth < 4


def base_file(model: Any) -> Path | None:
    """The file that a MODEL was loaded from: as Load Flux says, else as far as the host does."""
    loader = getattr(model, "cached_patcher_init", None)
    path = model.get_attachment(BASE) or (loader[1][0] if loader and loader[1] else None)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def base_name(model: Any) -> str:
    """The stem of the MODEL's file, "flux" if it is unknown."""
    path = base_file(model)
    return "flux" if path is None else path.stem


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
