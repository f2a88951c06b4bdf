"""The families that draw with a negative prompt, each with a toy, and what their tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from tiny import (
    FLUX2_FAMILY,
    QWEN_IMAGE_FAMILY,
    SD3_FAMILY,
    ZIMAGE_FAMILY,
    make_flux2,
    make_qwen_image,
    make_sd3,
    make_zimage,
)

from erase_core.erasers.lora import EraserLora
from erase_core.models.base import Model
from erase_core.models.family import Family


class Kind(NamedTuple):
    """A family, a toy of it, the Linear that reads the text, and its distilled model's steps."""

    family: Family
    make: Callable[..., Model]
    reads: str
    few: int


FLUX2 = Kind(FLUX2_FAMILY, make_flux2, "txt_in", 4)
ZIMAGE = Kind(ZIMAGE_FAMILY, make_zimage, "cap_embedder.1", 8)
QWEN_IMAGE = Kind(QWEN_IMAGE_FAMILY, make_qwen_image, "txt_in", 8)
SD3 = Kind(SD3_FAMILY, make_sd3, "context_embedder", 4)


def random_lora(model: Model, size: float = 0.1) -> EraserLora:
    """In every role, with numbers as large as ``size``."""
    lora = EraserLora.create(model.slots(model.family.roles), rank=2, seed=1)
    generator = torch.Generator().manual_seed(2)
    lora.load_state(
        {k: size * torch.randn(v.shape, generator=generator) for k, v in lora.state().items()}
    )
    return lora
