"""Own pictures of what must stay: a folder of pictures, a caption in a text file beside each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EraseError

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.base import VAE
    from ..training.states import KeepPictures

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_keep_pictures(folder: Path, vae: VAE, size: tuple[int, int]) -> KeepPictures:
    """Pictures of ``folder`` as latents, cropped to ``size`` (height, width), and their captions.

    The caption of ``rose.png`` is the text of ``rose.txt``. EraseError when there are no pictures,
    a caption is missing or a picture cannot be read.
    """
    import torch

    from ..training.states import KeepPictures

    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise EraseError(f"{folder} holds no pictures; put PNG, JPEG or WebP files there.")
    prompts = tuple(_caption(path) for path in paths)
    with torch.no_grad():
        latents = [vae.encode(_picture(path, size)).float().cpu() for path in paths]
    return KeepPictures(torch.cat(latents), prompts)


def _caption(path: Path) -> str:
    from ..files import read_text

    text = path.with_suffix(".txt")
    if not text.is_file():
        raise EraseError(f"{path} has no caption; write what it shows into {text.name} beside it.")
    return read_text(text).strip()


def _picture(path: Path, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) in [0, 1], scaled and cropped around the middle."""
    import numpy as np
    import torch
    from PIL import ImageOps

    from ..files import read_picture

    fitted = ImageOps.fit(read_picture(path), (size[1], size[0]))
    pixels = np.asarray(fitted, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
