"""What the host tells of a MODEL, and what a family's file here adds to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_sampling
from torch import nn

from ...erase_core.errors import EraseError
from ...erase_core.models.base import TextEncoder
from ...erase_core.models.family import Family
from ...erase_core.tensors import read_tensors

BASE = "eraseanything_base"  # a MODEL's attachment: its file


@dataclass(frozen=True)
class Host:
    """A family in the host.

    Attributes
    ----------
    family
        The family of the core.
    owns
        Whether a MODEL is of it.
    sizes
        The sizes of such a MODEL; EraseError unless it turns a prompt into a picture.
    tree
        A tree that computes with the MODEL's own layers and can be trained through.
    text
        A CLIP as the core's encoder for these sizes; EraseError when it is of another kind.
    shift
        The shift of the MODEL's noise schedule, None for none.
    clip_loader
        What loads its CLIP; none: Load CLIP, told the family's name.
    fills
        To how many text tokens the host fills shorter prompts up, on their left.
    """

    family: Family
    owns: Callable[[Any], bool]
    sizes: Callable[[Any], Any]
    tree: Callable[[Any, Any], nn.Module]
    text: Callable[[Any, Any], TextEncoder]
    shift: Callable[[Any], float | None]
    clip_loader: str = ""
    fills: int = 0

    @property
    def name(self) -> str:
        """The family's."""
        return self.family.name

    @property
    def loaders(self) -> str:
        """The host's own nodes that load it."""
        clip = self.clip_loader or f"Load CLIP (type {self.name})"
        return f"Load Diffusion Model, {clip} and Load VAE"


def refuse_unknown(path: Path, family: Family, known: bool) -> None:
    """EraseError for a file of a family in a host that does not know it, and so no such file."""
    if not known and family.owns(_shapes(path)):
        raise EraseError(
            f"{path.name} is {family.label}, which this ComfyUI is too old for; update ComfyUI."
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in read_tensors(path)[0].items()}


def flow_shift(model: Any) -> float | None:
    """The shift of a MODEL's noise schedule: its own mu, or that of ModelSamplingAuraFlow or
    ModelSamplingSD3, which is its exponential; None for a shift of 1."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):
        return float(sampling.shift)
    return math.log(getattr(sampling, "shift", 1.0)) or None


def kind_of(model: Any) -> type | None:
    """The host's own class of a MODEL, or that which a node pack's derives from."""
    own = comfy.model_base.__name__
    return next((c for c in type(model.model).__mro__ if c.__module__ == own), None)


def base_file(model: Any) -> Path | None:
    """The file that a MODEL was loaded from: as Load Flux says, else as far as the host does."""
    loader = getattr(model, "cached_patcher_init", None)
    path = model.get_attachment(BASE) or (loader[1][0] if loader and loader[1] else None)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def base_name(model: Any) -> str:
    """The stem of the MODEL's file, or its kind, such as "flux", if that is unknown."""
    path = base_file(model)
    return type(model.model).__name__.lower() if path is None else path.stem
