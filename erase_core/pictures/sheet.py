"""What all sheets share: colours, spacing, lettering."""

from __future__ import annotations

import math
from functools import cache

from PIL import Image, ImageFont
from torch import Tensor

Picture = Image.Image
Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 30, 36)
GREY: Colour = (112, 117, 128)
LINE: Colour = (223, 226, 232)
BAND: Colour = (241, 243, 247)
MARGIN = 28
GAP = 6


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at ``size`` pixels."""
    return ImageFont.load_default(size)


def to_pictures(pixels: Tensor) -> list[Picture]:
    """uint8 (N, H, W, 3) as N pictures."""
    return [Image.fromarray(rows.cpu().numpy()) for rows in pixels]


def text_width(text: str, size: int) -> int:
    return math.ceil(font(size).getlength(text))


def wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of whole words, none wider than ``width`` unless a single word is."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
