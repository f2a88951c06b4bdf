"""The four losses of a run as curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageColor, ImageDraw

from .palette import COLOURS, WORDS
from .sheet import LIGHT, MARGIN, Colour, Picture, Theme, text_width, write

CURVES: Mapping[str, Colour] = {
    loss: ImageColor.getrgb(colour)[:3] for loss, colour in COLOURS.items()
}
NAMES = {loss: f"L_{loss}  {word}" for loss, word in WORDS.items()}
SMOOTH = 0.92  # share of the past in a smoothed curve
FINE = 3  # curves are drawn this much larger and reduced, for smooth lines


def loss_chart(
    history: Sequence[Mapping[str, float]],
    *,
    title: str = "",
    size: tuple[int, int] = (1200, 700),
    log: bool = True,
    theme: Theme = LIGHT,
) -> Picture:
    """The losses of a run: smoothed curves over the faint raw ones.

    ``history`` has one mapping an iteration from "esd", "attn", "lora", "rsc", "adv" to the
    unweighted loss, absent when it was not computed. ``log`` chooses the vertical axis; a
    logarithmic one spans five decades at most and cuts off what lies below.
    """
    curves = {
        name: [(step, losses[name]) for step, losses in enumerate(history, 1) if name in losses]
        for name in CURVES
    }
    curves = {name: points for name, points in curves.items() if points}
    smooth = {name: _smoothed(points) for name, points in curves.items()}
    axis = _Axis.over([value for points in smooth.values() for _, value in points], log)
    sheet = Image.new("RGB", size, theme.paper)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, MARGIN - 6), theme.label(title), theme.ink, 28)
    box = (MARGIN + 74, MARGIN + 84, size[0] - MARGIN, size[1] - MARGIN - 50)
    _draw_axes(draw, box, axis, len(history), theme)
    _draw_legend(draw, smooth, (box[0], MARGIN + 46), theme)
    plot = _draw_curves((box[2] - box[0], box[3] - box[1]), curves, smooth, axis, len(history))
    sheet.paste(plot, box[:2], plot)
    return sheet


@dataclass(frozen=True)
class _Axis:
    """A vertical axis from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], log: bool) -> _Axis:
        finite = [value for value in values if math.isfinite(value)]
        high = max(finite, default=1.0) or 1.0
        if not log:
            return cls(min(0.0, min(finite, default=0.0)), high * 1.08, False)
        low = min((value for value in finite if value > high * 1e-5), default=high / 10)
        return cls(low / 1.6, high * 1.6, True)

    def place(self, value: float) -> float:
        """0 at the bottom to 1 at the top; values outside are cut off there."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round numbers within the axis."""
        if not self.log:
            return _round_steps(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if self.high / self.low < 3000 else (1,)
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        return [tick for tick in ticks if self.low <= tick <= self.high]


def _round_steps(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten between two numbers."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Running mean that forgets; non-finite values are left out."""
    found, mean, weight = [], 0.0, 0.0
    for step, value in points:
        if math.isfinite(value):
            mean = SMOOTH * mean + (1 - SMOOTH) * value
            weight = SMOOTH * weight + (1 - SMOOTH)
            found.append((step, mean / weight))
    return found


def _draw_axes(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    axis: _Axis,
    steps: int,
    theme: Theme,
) -> None:
    left, top, right, bottom = box
    for tick in axis.ticks():
        y = bottom - axis.place(tick) * (bottom - top)
        draw.line((left, y, right, y), theme.line)
        write(draw, (left - 10, y), f"{tick:g}", theme.grey, 16, "rm")
    for tick in _round_steps(0, max(steps, 1), 8):
        if tick == int(tick):
            x = left + tick / max(steps, 1) * (right - left)
            draw.line((x, bottom, x, bottom + 6), theme.grey)
            write(draw, (x, bottom + 12), f"{int(tick)}", theme.grey, 16, "mt")
    draw.line((left, bottom, right, bottom), theme.grey)
    write(draw, ((left + right) / 2, bottom + 36), theme.label("iteration"), theme.grey, 16, "mt")
    scale = "loss (log)" if axis.log else "loss"
    write(draw, (MARGIN, top - 14), theme.label(scale), theme.grey, 16, "ls")


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    smooth: Mapping[str, Sequence[tuple[int, float]]],
    corner: tuple[int, int],
    theme: Theme,
) -> None:
    x, y = corner
    for name, points in smooth.items():
        draw.rounded_rectangle((x, y - 3, x + 26, y + 3), 3, CURVES[name])
        text = theme.label(NAMES[name])
        text = f"{text}  {points[-1][1]:.3g}" if points else text
        write(draw, (x + 34, y), text, theme.ink, 16, "lm")
        x += 34 + text_width(text, 16) + 26


def _draw_curves(
    size: tuple[int, int],
    raw: Mapping[str, Sequence[tuple[int, float]]],
    smooth: Mapping[str, Sequence[tuple[int, float]]],
    axis: _Axis,
    steps: int,
) -> Picture:
    """All curves on a transparent picture of ``size``."""
    width, height = size[0] * FINE, size[1] * FINE
    plot = Image.new("RGBA", (width, height), (0, 0, 0, 0))

    def trace(points: Iterable[tuple[int, float]], colour: tuple[int, ...], thick: int) -> None:
        layer = Image.new("RGBA", plot.size, (*colour[:3], 0))
        line = [
            (step / max(steps, 1) * width, (1 - axis.place(value)) * (height - 1))
            for step, value in points
            if math.isfinite(value)
        ]
        ImageDraw.Draw(layer).line(line, colour, thick, joint="curve")
        plot.alpha_composite(layer)

    for name, points in raw.items():
        trace(points, (*CURVES[name], 55), FINE)
    for name, points in smooth.items():
        trace(points, (*CURVES[name], 255), 3 * FINE - 1)
    return plot.reduce(FINE)
