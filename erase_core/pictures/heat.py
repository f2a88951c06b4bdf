"""Attention laid over pictures, word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from .sheet import GAP, LIGHT, MARGIN, Colour, Picture, text_width, wrap, write

# From no attention to the most: dark violet, magenta, orange, pale yellow, evenly brighter.
HEAT: tuple[Colour, ...] = (
    (14, 8, 38),
    (74, 18, 110),
    (150, 42, 122),
    (218, 72, 94),
    (250, 136, 78),
    (254, 226, 148),
)


@dataclass(frozen=True)
class HeatRow:
    """A picture and the attention that each word of its prompt pays to it.

    ``heats`` holds, for each word, (rows, columns) of shares in [0, 1].
    """

    label: str
    picture: Picture
    heats: Mapping[str, Tensor]


def heat_colour(share: float) -> Colour:
    """The colour of ``share`` in [0, 1] on the heat scale."""
    place = min(max(share, 0.0), 1.0) * (len(HEAT) - 1)
    index = min(int(place), len(HEAT) - 2)
    mix = place - index
    low, high = HEAT[index], HEAT[index + 1]
    red, green, blue = (round(a + (b - a) * mix) for a, b in zip(low, high, strict=True))
    return red, green, blue


def overlay(picture: Picture, heat: Tensor, most: float) -> Picture:
    """A picture with attention laid over it.

    ``heat`` (rows, columns) is enlarged smoothly to the picture's size; ``most`` is the value at
    the top of the scale. Where there is none the picture shows through, greyed and darkened.
    """
    shares = (heat.detach().float().cpu() / (most or 1.0)).clamp(0, 1)
    levels = Image.fromarray((shares * 255).round().byte().numpy())
    levels = levels.resize(picture.size, Image.Resampling.BICUBIC)
    tables = zip(*(heat_colour(level / 255) for level in range(256)), strict=True)
    colours = Image.merge("RGB", [levels.point(table) for table in tables])
    ground = Image.blend(picture.convert("L").convert("RGB"), picture.convert("RGB"), 0.35)
    ground = Image.blend(ground, Image.new("RGB", ground.size, HEAT[0]), 0.3)
    strength = levels.point([round(255 * min(0.85, 0.1 + level / 255)) for level in range(256)])
    return Image.composite(colours, ground, strength)


def heat_grid(rows: Sequence[HeatRow], *, title: str = "", cell: int = 224) -> Picture:
    """Pictures with one overlay a word, named above it with its highest value.

    A word has one colour scale for all rows, from nothing to the highest value of any row. So rows
    can be compared. ``cell`` is the height of a picture in pixels.
    """
    tops: dict[str, float] = {}
    for row in rows:
        for word, heat in row.heats.items():
            tops[word] = max(tops.get(word, 0.0), float(heat.max()))
    label_width = min(max(20 + max(text_width(row.label, 17) for row in rows), 100), 260)
    width = round(cell * rows[0].picture.width / rows[0].picture.height)
    columns = 1 + max(len(row.heats) for row in rows)
    top = MARGIN + (44 if title else 0)
    height = cell + 34
    lines = wrap(title, 28, max(label_width + columns * (width + 2 * GAP), 600))
    top += 36 * (len(lines) - 1) if title else 0
    size = (
        2 * MARGIN + max(label_width + columns * (width + 2 * GAP) - 2 * GAP, 600),
        top + len(rows) * height + 76 + MARGIN,
    )
    sheet = Image.new("RGB", size, LIGHT.paper)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        write(draw, (MARGIN, MARGIN - 6 + 36 * number), line, LIGHT.ink, 28)
    for index, row in enumerate(rows):
        _draw_row(sheet, row, (MARGIN, top + index * height), label_width, (width, cell), tops)
    left = MARGIN + label_width
    right = left + columns * (width + 2 * GAP) - 2 * GAP
    _draw_scale(sheet, left, right, top + len(rows) * height + 22)
    return sheet


def _draw_row(
    sheet: Picture,
    row: HeatRow,
    corner: tuple[int, int],
    label_width: int,
    size: tuple[int, int],
    tops: Mapping[str, float],
) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    lines = wrap(row.label, 17, label_width - 12)
    for number, line in enumerate(lines):
        middle = y + 30 + size[1] / 2 + (number - (len(lines) - 1) / 2) * 22
        write(draw, (x + 4, middle), line, LIGHT.ink, 17, "lm")
    x += label_width
    picture = row.picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    cells = [("", picture)]
    for word, heat in row.heats.items():
        peak = f"{word}  up to {float(heat.max()):.2g}"
        cells.append((peak, overlay(picture, heat, tops[word])))
    for name, shown in cells:
        write(draw, (x + size[0] / 2, y + 20), name, LIGHT.ink, 17, "mm")
        sheet.paste(shown, (x, y + 34))
        x += size[0] + 2 * GAP


def _draw_scale(sheet: Picture, left: int, right: int, top: int) -> None:
    """The colour bar, from nothing to a word's highest value."""
    draw = ImageDraw.Draw(sheet)
    for x in range(left, right):
        draw.line((x, top, x, top + 14), heat_colour((x - left) / (right - left)))
    write(draw, (left, top + 20), "0", LIGHT.grey, 15, "lt")
    write(draw, (right, top + 20), "the word's highest", LIGHT.grey, 15, "rt")
    note = "share of each place's attention that goes to the word"
    write(draw, (left, top + 42), note, LIGHT.grey, 15, "lt")
