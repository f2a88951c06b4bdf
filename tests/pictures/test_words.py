"""A word's attention as grids, tiles and masks."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from erase_core.pictures.words import COLUMNS, SHEET, enlarged, grey, spread, tiled, word_grid


def test_tiles_lie_block_by_step() -> None:
    steps, blocks = 2, 3
    parts = torch.stack(
        [torch.stack([torch.full((4, 5), 10.0 * b + s) for b in range(blocks)]) for s in (0, 1)]
    )
    whole = tiled(parts)
    assert whole.shape == (blocks * 4, steps * 5)
    for block in range(blocks):
        for step in range(steps):
            tile = whole[4 * block : 4 * block + 4, 5 * step : 5 * step + 5]
            assert (tile == 10 * block + step).all()


def test_many_tiles_are_made_smaller_and_keep_their_mean() -> None:
    parts = torch.rand(6, 19, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = tiled(parts)
    assert SHEET / 2 < whole.numel() <= SHEET
    torch.testing.assert_close(whole.mean(), parts.mean(), atol=1e-3, rtol=0)


def test_grey_is_white_at_the_highest() -> None:
    levels = np.asarray(grey(torch.tensor([[0.0, 0.1], [0.2, 0.05]])))
    assert levels.tolist() == [[0, 128], [255, 64]]
    assert not np.asarray(grey(torch.zeros(2, 2))).any()


def test_masks_stay_in_range_and_in_place() -> None:
    heats = torch.zeros(1, 4, 4)
    heats[0, 0, 3] = 1.0
    mask = enlarged(heats, (32, 64))
    assert mask.shape == (1, 32, 64) and mask.min() >= 0 and mask.max() <= 1
    row, column = divmod(int(mask[0].argmax()), 64)
    assert row < 8 and column >= 48


def test_a_grid_shows_few_steps_of_many() -> None:
    assert spread(3) == [0, 1, 2] and len(spread(28)) == COLUMNS
    assert spread(28)[0] == 0 and spread(28)[-1] == 27
    parts = torch.rand(28, 2, 4, 4)
    picture = Image.new("RGB", (64, 64))
    wide = word_grid(picture, "tiger", parts, [0, 1], range(28))
    narrow = word_grid(picture, "tiger", parts[:3, :1], [0], range(3))
    assert wide.width > narrow.width and wide.height > narrow.height
