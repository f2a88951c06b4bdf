"""Pictures as the host has them (IMAGE), as latents of a MODEL, and as Pillow's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import comfy.sample
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..erase_core.errors import EraseError
from ..erase_core.models.base import Conditioning
from ..erase_core.pictures.sheet import DARK, LIGHT, Theme
from . import hosts
from .language import said, settings


def theme() -> Theme:
    """The colours and the language of a sheet that suit the page: dark, as the host's is unless it
    was told."""
    colours = LIGHT if settings().get("Comfy.ColorPalette") == "light" else DARK
    return replace(colours, said=said)


def conditioning(cond: Conditioning, guidance: float | None = None) -> list[list[Any]]:
    """Encoded prompts, all of as many tokens, as the host's CONDITIONING; ``guidance`` where it is
    an input of the model."""
    more: dict[str, Any] = {"pooled_output": cond.pooled}  # older hosts ask for it if it is None
    told = {} if guidance is None else {"guidance": guidance}
    return [[torch.stack(cond.rows()), more | told]]


def decode(model: Any, vae: Any, latents: Tensor) -> Tensor:
    """Latents as the MODEL sees them (B, C, h, w) -> an IMAGE (B, H, W, 3) in [0, 1]."""
    with torch.inference_mode():
        wide = _in_time(model, latents.float().cpu())
        images = vae.decode(model.model.latent_format.process_out(wide))
    return _visible(images).clone()


def _in_time(model: Any, latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as the host has them: (B, C, 1, h, w) where they may be a film's."""
    return latents.unsqueeze(2) if _films(model) else latents


def _films(model: Any) -> bool:
    """Whether a MODEL's latents have a time axis, as Qwen-Image's."""
    return getattr(model.model.latent_format, "latent_dimensions", 2) == 3


def _visible(images: Tensor) -> Tensor:
    """What a VAE drew, perhaps as films (B, 1, H, W, 3), in [0, 1] on the CPU; EraseError when
    there is nothing to be seen."""
    images = images.flatten(0, -4)
    if not images.isfinite().all():
        raise EraseError(
            "The pictures are NaN: the model, a LoRA or the VAE is damaged, or a strength or the "
            "guidance is too high."
        )
    return images.float().cpu().clamp(0, 1)


def encode(model: Any, vae: Any, images: Tensor) -> Tensor:
    """An IMAGE (B, H, W, 3) -> latents as the MODEL sees them, on the CPU."""
    parts = images.split(1 if _films(model) else len(images))  # for it they would be one film
    with torch.inference_mode():
        latents = torch.cat([vae.encode(part[..., :3]) for part in parts])
    found = model.model.latent_format.process_in(latents.float().cpu())
    return (found[:, :, 0] if found.ndim == 5 else found).clone()


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

    One prompt and one seed a picture; ``size`` is (height, width) in pixels; ``guidance`` is the
    model's input, or the scale of a negative prompt. ``on_step`` hears how many of the N * steps
    steps are done. Call it in the executor's inference mode.
    """
    scaled = hosts.host_of(model).family.negative
    images = []
    for rows in _together(cond, min(32, max(1, 2**20 // (size[0] * size[1])))):
        start, part = rows[0], cond.select(rows)
        positive = negative = conditioning(part, None if scaled else guidance)
        if scaled and part.negative is not None:
            negative = conditioning(part.negative.select([0] * len(rows)))
        noises = _in_time(model, hosts.noise(model, [seeds[row] for row in rows], size))

        def tell(step: int, *_: Any, first: int = start, count: int = len(rows)) -> None:
            on_step(first * steps + (step + 1) * count)

        latents = comfy.sample.sample(
            model,
            noises,
            steps,
            guidance if scaled else 1.0,
            "euler",
            "simple",
            positive,
            negative,  # not looked at with a guidance scale of 1
            torch.zeros_like(noises),
            callback=tell,
            disable_pbar=True,
            seed=seeds[start],
        )
        images.append(_visible(vae.decode(latents)))
    return torch.cat(images)


def _together(cond: Conditioning, batch: int) -> Iterator[Sequence[int]]:
    """Prompts that follow one another and have as many tokens, at most ``batch`` of them."""
    start, counts = 0, [len(row) for row in cond.rows()]
    for end in range(1, len(counts) + 1):
        if end == len(counts) or end - start == batch or counts[end] != counts[start]:
            yield range(start, end)
            start = end


def further(bar: Any, first: int, done: int) -> None:
    """Tell the host how many steps are done, after ``first`` of them."""
    bar.update_absolute(first + done)


def to_bytes(image: Tensor) -> Tensor:
    """An IMAGE (B, H, W, 3) as uint8 on the CPU."""
    return (image.cpu() * 255).round().byte()


def to_pil(image: Tensor) -> list[Image.Image]:
    """An IMAGE (B, H, W, 3) as pictures."""
    return [Image.fromarray(rows.numpy()) for rows in to_bytes(image)]


def to_image(*pictures: Image.Image) -> Tensor:
    """Pictures of one size as an IMAGE (B, H, W, 3) in [0, 1]."""
    rows = [
        torch.frombuffer(bytearray(p.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
            p.height, p.width, 3
        )
        for p in pictures
    ]
    return torch.stack(rows).float() / 255


def blurred(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Blurred until shapes are gone, 1/16 of the width around."""
    return [p.filter(ImageFilter.GaussianBlur(p.width / 16)) for p in pictures]
