"""A small CNN that names what MiniFlux draws: things, colour, style, number, layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .world import COLOURS, LAYOUTS, NUMBERS, STYLES, THINGS

WIDTH = 112
HEADS = {
    "colour": len(COLOURS) + 1,  # the last one: not to be seen
    "style": len(STYLES) + 1,  # the last one: none
    "number": len(NUMBERS) + 1,  # copies of the thing, 0 for an empty ground
    "layout": len(LAYOUTS),
}


@dataclass(frozen=True)
class Seen:
    """Logits for B pictures: ``maps`` (B, things, 16, 16) say where, ``things`` (B, things) say
    whether; ``heads`` hold (B, classes) each of colour, style, number and layout."""

    maps: Tensor
    things: Tensor
    heads: dict[str, Tensor]


def _conv(n_in: int, n_out: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    reach = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, reach, dilation, bias=False),
        nn.GroupNorm(8, n_out),
        nn.SiLU(),
    )


class _Residual(nn.Module):
    """Two convolutions; the first one looks ``dilation`` cells apart."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(width, width, dilation=dilation), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Recogniser(nn.Module):
    """One sigmoid a thing, gathered over its own map, and four softmax heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 32, size=5, stride=2),
            _conv(32, 64, stride=2),
            _conv(64, WIDTH, stride=2),
            _Residual(WIDTH, 1),
            _Residual(WIDTH, 2),
            _Residual(WIDTH, 1),
        )
        self.things = nn.Conv2d(WIDTH, len(THINGS), 1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * WIDTH, count) for name, count in HEADS.items()}
        )

    def forward(self, pictures: Tensor) -> Seen:
        """Look at pictures (B, 3, 128, 128) in [0, 1]."""
        x = self.body(pictures * 2 - 1)
        maps = self.things(x).float()
        # A soft maximum: every place learns from the first step, one strong place is enough.
        things = maps.flatten(2).logsumexp(-1) - math.log(maps[0, 0].numel())
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        heads = {name: head(pooled).float() for name, head in self.heads.items()}
        return Seen(maps, things, heads)
