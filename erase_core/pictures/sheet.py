"""What all sheets share: themes, spacing, lettering."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from re import compile as regex

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Picture = Image.Image
Colour = tuple[int, int, int]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MARGIN = 28
GAP = 6
# What may stand on a line of its own: an East Asian letter with the mark after it, or others.
MARKS = "\uff0c\u3002\u3001\uff1a\uff1b\uff01\uff1f”\uff09"
PIECE = regex(rf"[\u2e80-\U0010ffff][{MARKS}]*|[^\u2e80-\U0010ffff]+")
# What Windows, macOS and Linux bring with more letters; Pillow knows their folders.
WIDE_FONTS = (
    "msyh.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)


@dataclass(frozen=True)
class Theme:
    """The colours of a sheet: its ground, letters, small letters, lines and bands.

    ``said`` puts what is written on it into the language of who looks at it.
    """

    paper: Colour
    ink: Colour
    grey: Colour
    line: Colour
    band: Colour
    said: Callable[[str], str] = str

    def label(self, text: str) -> str:
        """A text of ours in that language, or as it is where no font has its letters."""
        told = self.said(text)
        return told if all(has(letter, True) for letter in set(told) - set(text)) else text


LIGHT = Theme((255, 255, 255), (28, 30, 36), (112, 117, 128), (223, 226, 232), (241, 243, 247))
DARK = Theme((32, 32, 34), (232, 233, 236), (152, 156, 165), (66, 68, 74), (48, 49, 53))


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: Colour,
    size: int,
    anchor: str = "la",
) -> None:
    """A line of text, ``size`` pixels high, at a place; ``anchor`` as Pillow has it."""
    text, wide = drawable(text)
    draw.text(place, text, colour, font(size, wide), anchor=anchor)


def drawable(text: str) -> tuple[str, bool]:
    """What can be drawn of a text, and whether in the wide font: no boxes for emoji."""
    wide = any(not has(letter, False) and has(letter, True) for letter in text)
    if all(has(letter, wide) for letter in text):
        return text, wide
    return " ".join("".join(letter for letter in text if has(letter, wide)).split()), wide


@cache
def has(letter: str, wide: bool) -> bool:
    """Whether a font has a picture of a letter, another one than of what no font has."""
    if letter.isspace():
        return True
    if letter == "\ufe0f" or not letter.isprintable():  # what joins and colours emoji
        return False
    mask, none = (font(32, wide).getmask(c) for c in (letter, "\U0010fffe"))
    return (mask.size, bytes(mask)) != (none.size, bytes(none))


@cache
def font(size: int, wide: bool = False) -> Font:
    """Pillow's own font at ``size`` pixels; for ``wide`` text the system's, where it has one."""
    for name in WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def to_pictures(pixels: Tensor) -> list[Picture]:
    """uint8 (N, H, W, 3) as N pictures."""
    return [Image.fromarray(rows.cpu().numpy()) for rows in pixels]


def text_width(text: str, size: int) -> int:
    text, wide = drawable(text)
    return math.ceil(font(size, wide).getlength(text))


def wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of whole words, none wider than ``width`` unless a single word is. Between two East
    Asian letters a line may end, too."""
    lines: list[str] = []
    for gap, piece in _pieces(text):
        longer = f"{lines[-1]}{gap}{piece}" if lines else piece
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def _pieces(text: str) -> list[tuple[str, str]]:
    """What may stand on a line of its own, each with the space before it."""
    found = []
    for word in text.split():
        parts = PIECE.findall(word)
        found += [(" " if number == 0 else "", part) for number, part in enumerate(parts)]
    return found
