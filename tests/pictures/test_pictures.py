"""Sheets are read back pixel by pixel: what stands where, and in which colour."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from erase_core.pictures import HeatRow, Row, grid, heat_grid, loss_chart, overlay, to_pictures
from erase_core.pictures.chart import CURVES, SMOOTH, _Axis, _round_steps, _smoothed
from erase_core.pictures.heat import HEAT, heat_colour

RED, BLUE = (250, 10, 10), (10, 10, 250)
Box = tuple[int, int, int, int]


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, colour)


def box_of(sheet: Image.Image, colour: tuple[int, int, int], tolerance: int = 0) -> Box | None:
    """The bounding box of all pixels of a colour."""
    pixels = torch.tensor(list(sheet.tobytes()), dtype=torch.int).reshape(*sheet.size[::-1], 3)
    found = (pixels - torch.tensor(colour)).abs().amax(-1) <= tolerance
    if not found.any():
        return None
    rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_to_pictures_keeps_every_pixel() -> None:
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    first, second = to_pictures(pixels)
    assert first.size == (7, 5)
    assert list(second.tobytes()) == pixels[1].flatten().tolist()


def test_grid_puts_before_left_of_after_at_one_height() -> None:
    rows = [Row("a tiger", [[flat(RED)], [flat(BLUE)]])]
    left, right = (box_of(grid(rows, cell=64), colour) for colour in (RED, BLUE))
    assert left and right
    assert (left[2] - left[0], left[3] - left[1]) == (64, 64)
    assert left[2] < right[0]
    assert (left[1], left[3]) == (right[1], right[3])


def test_grid_keeps_the_aspect_and_grows_with_rows_and_sections() -> None:
    wide = flat(RED, (64, 32))
    one = grid([Row("a", [[wide]])], ("picture",), cell=64)
    box = box_of(one, RED)
    assert box and (box[2] - box[0], box[3] - box[1]) == (128, 64)
    plain = grid([Row("a", [[wide]]), Row("b", [[wide]])], ("picture",), cell=64)
    banded = grid([Row("a", [[wide]]), Row("b", [[wide]], "band")], ("picture",), cell=64)
    long = grid([Row("a", [[wide]]), Row("b", [[wide]], "a band " * 30)], ("picture",), cell=64)
    assert one.height + 64 < plain.height < banded.height < long.height - 60
    assert one.width == plain.width == banded.width


def test_smoothing_is_the_weighted_mean_of_the_past() -> None:
    values = [3.0, 1.0, math.nan, 4.0, 1.0]
    found = _smoothed(list(enumerate(values)))
    assert [step for step, _ in found] == [0, 1, 3, 4]
    past = [3.0, 1.0, 4.0, 1.0]
    weights = [SMOOTH ** (3 - i) for i in range(4)]
    expected = sum(w * v for w, v in zip(weights, past, strict=True)) / sum(weights)
    assert found[-1][1] == pytest.approx(expected)


def test_axes_have_round_numbers_and_put_more_above_less() -> None:
    assert _round_steps(0, 400, 8) == [0, 50, 100, 150, 200, 250, 300, 350, 400]
    log = _Axis.over([0.01, 1.0], log=True)
    assert {0.01, 0.1, 1.0} <= {round(tick, 9) for tick in log.ticks()}
    assert log.place(0.1) == pytest.approx(0.5)
    assert 0 == log.place(0.0) < log.place(0.02) < log.place(0.9) < log.place(9.0) == 1
    linear = _Axis.over([0.0, 2.0], log=False)
    assert linear.place(1.0) == pytest.approx(0.5 / 1.08)


@pytest.mark.parametrize("log", [True, False])
def test_chart_draws_the_losses_that_there_are_where_they_belong(log: bool) -> None:
    history = [{"esd": 1.0, "lora": 0.05} for _ in range(50)]
    history[10]["lora"] = math.nan
    chart = loss_chart(history, title="t", log=log)
    plot = chart.crop((110, 112, chart.width, chart.height - 90))
    high, low = (box_of(plot, CURVES[name], 8) for name in ("esd", "lora"))
    assert high and low
    assert high[3] < low[1]
    assert min(high[2] - high[0], low[2] - low[0]) > 0.9 * plot.width
    assert box_of(chart, CURVES["rsc"], 8) is None


def test_chart_stands_an_empty_and_a_broken_run() -> None:
    loss_chart([])
    loss_chart([{"esd": math.nan}, {"esd": math.inf}, {"esd": 0.0}])


def test_heat_scale_gets_brighter_all_the_way() -> None:
    light = [sum(heat_colour(step / 50)) for step in range(51)]
    assert all(a < b for a, b in zip(light, light[1:], strict=False))
    assert heat_colour(-1) == HEAT[0]
    assert heat_colour(2) == HEAT[-1]


def test_overlay_shows_heat_where_it_is_and_the_picture_elsewhere() -> None:
    heat = torch.zeros(4, 8)
    heat[1, 6] = 0.5
    laid = overlay(flat((128, 128, 128), (80, 40)), heat, most=0.5)
    assert laid.size == (80, 40)
    hot, cold = laid.getpixel((65, 15)), laid.getpixel((5, 35))
    assert isinstance(hot, tuple) and isinstance(cold, tuple)
    assert max(abs(a - b) for a, b in zip(hot, HEAT[-1], strict=True)) < 60
    assert max(cold) - min(cold) < 30
    assert sum(hot) > sum(cold) + 150


def test_heat_rows_share_a_scale_word_by_word() -> None:
    full = {"tiger": torch.ones(2, 2), "car": torch.full((2, 2), 0.01)}
    fading = {"tiger": torch.full((2, 2), 0.1), "car": torch.full((2, 2), 0.01)}
    grey = flat((90, 90, 90))
    rows = [HeatRow("before", grey, full), HeatRow("after", grey, fading)]
    sheet = heat_grid(rows, title="t", cell=64)
    brightest = overlay(grey, torch.ones(2, 2), 1.0).getpixel((5, 5))
    assert isinstance(brightest, tuple)
    box = box_of(sheet.crop((0, 0, sheet.width, sheet.height - 104)), brightest[:3])
    # the tiger before, the car before and after; the tiger after is darker
    assert box and (box[2] - box[0], box[3] - box[1]) == (64 * 2 + 12, 64 * 2 + 34)
    dark = overlay(grey, torch.full((2, 2), 0.1), 1.0).getpixel((5, 5))
    assert isinstance(dark, tuple)
    faded = box_of(sheet, dark[:3])
    assert faded and faded[2] - faded[0] == 64
