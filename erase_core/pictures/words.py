"""A word's attention, step by step and block by block.

Maps are shares of attention, as :class:`erase_core.models.attention.WordMaps` has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .grid import Row, grid
from .heat import overlay
from .sheet import LIGHT, Picture, Theme

COLUMNS = 6  # steps shown at most
CELL = 160  # pixels of a cell of the grid
SHEET = 2**17  # pixels of all maps of a word at most


def spread(count: int) -> list[int]:
    """At most COLUMNS of ``count`` places, evenly spread."""
    return torch.linspace(0, count - 1, min(COLUMNS, count)).round().int().tolist()


def word_grid(
    picture: Picture,
    word: str,
    parts: Tensor,
    blocks: Sequence[int],
    steps: Sequence[int],
    theme: Theme = LIGHT,
) -> Picture:
    """Overlays of one word, a row for each block and columns along the steps, on one scale.

    ``parts`` (S, N, rows, columns) are its maps; ``blocks`` (N) and ``steps`` (S) are numbers.
    """
    top = highest(parts)
    small = picture.resize((max(1, round(CELL * picture.width / picture.height)), CELL))
    picked = spread(len(steps))
    rows = [
        Row(
            theme.label(f"block {block}"),
            [[overlay(small, parts[step, place], top)] for step in picked],
        )
        for place, block in enumerate(blocks)
    ]
    headings = [f"step {steps[step]}" for step in picked]
    return grid(rows, headings, title=f"“{word}”, up to {top:.2g}", cell=CELL, theme=theme)


def tiled(parts: Tensor) -> Tensor:
    """The maps (S, N, rows, columns) of a word as one, a row of tiles a block, a column a step.

    They are made smaller where all would have more than SHEET pixels.
    """
    small = min(1.0, (SHEET / parts.numel()) ** 0.5)
    size = [max(1, int(small * side)) for side in parts.shape[2:]]
    tiles = F.interpolate(parts, size, mode="area").permute(1, 2, 0, 3)
    return tiles.reshape(len(tiles) * size[0], len(parts) * size[1])


def enlarged(heats: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, rows, columns) in [0, 1], smoothly enlarged to (N, height, width) in pixels."""
    return F.interpolate(heats[:, None], size, mode="bicubic", antialias=True)[:, 0].clamp(0, 1)


def grey(heat: Tensor) -> Picture:
    """A map (rows, columns) as grey levels, white at its highest."""
    levels = (heat / highest(heat) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(levels.numpy())


def highest(heat: Tensor) -> float:
    """The highest share, above 0 so that it can be divided by."""
    return max(float(heat.max()), 1e-12)
