"""Labelled grids of pictures, the same seeds under every heading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .sheet import GAP, LIGHT, MARGIN, Picture, Theme, text_width, wrap, write


@dataclass(frozen=True)
class Row:
    """One line of a grid: a label and, under each heading, pictures side by side.

    ``section`` starts a new band with that title above the row; ``note`` is small text under the
    label.
    """

    label: str
    groups: Sequence[Sequence[Picture]]
    section: str = ""
    note: str = ""


def grid(
    rows: Sequence[Row],
    headings: Sequence[str] = ("before", "after"),
    *,
    title: str = "",
    cell: int = 128,
    theme: Theme = LIGHT,
) -> Picture:
    """Rows of pictures, ``cell`` pixels high each, under headings such as before and after.

    Every row has as many groups as there are headings, and as many pictures a group as the others.
    """
    label_width = 30 + max(text_width(row.label, 17) for row in rows)
    label_width = min(max(label_width, 140), 300)
    cell_width = round(cell * rows[0].groups[0][0].width / rows[0].groups[0][0].height)
    group_width = len(rows[0].groups[0]) * (cell_width + GAP) - GAP
    lefts = [MARGIN + label_width + i * (group_width + 4 * GAP) for i in range(len(headings))]
    top = MARGIN + (44 if title else 0) + 34
    width = lefts[-1] + group_width + MARGIN
    bands = [wrap(theme.label(row.section), 17, width - 2 * MARGIN - 24) for row in rows]
    heights = [cell + GAP + (22 + 22 * len(band) if band else 0) for band in bands]
    sheet = Image.new("RGB", (width, top + sum(heights) + MARGIN), theme.paper)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN - 6), theme.label(title), theme.ink, 28)
    for left, heading in zip(lefts, headings, strict=True):
        write(draw, (left + group_width / 2, top - 22), theme.label(heading), theme.ink, 20, "mm")
    for row, band, height in zip(rows, bands, heights, strict=True):
        if band:
            box = (MARGIN, top + 6, width - MARGIN, top + 14 + 22 * len(band))
            draw.rounded_rectangle(box, 6, theme.band)
        for number, line in enumerate(band):
            write(draw, (MARGIN + 12, top + 21 + 22 * number), line, theme.ink, 17, "lm")
        _draw_row(sheet, row, top + height - cell - GAP, lefts, (cell_width, cell), theme)
        top += height
    return sheet


def _draw_row(
    sheet: Picture,
    row: Row,
    top: int,
    lefts: Sequence[int],
    cell: tuple[int, int],
    theme: Theme,
) -> None:
    draw = ImageDraw.Draw(sheet)
    lines = wrap(row.label, 17, lefts[0] - MARGIN - 18)
    notes = wrap(theme.label(row.note), 14, lefts[0] - MARGIN - 18) if row.note else []
    y = top + cell[1] / 2 - (22 * len(lines) + 19 * len(notes)) / 2
    for text, size, colour, step in [
        *((line, 17, theme.ink, 22) for line in lines),
        *((note, 14, theme.grey, 19) for note in notes),
    ]:
        write(draw, (MARGIN + 4, y), text, colour, size)
        y += step
    for left, pictures in zip(lefts, row.groups, strict=True):
        for index, picture in enumerate(pictures):
            sheet.paste(_fit(picture, cell), (left + index * (cell[0] + GAP), top))


def _fit(picture: Picture, size: tuple[int, int]) -> Picture:
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
