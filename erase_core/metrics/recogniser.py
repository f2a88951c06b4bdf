"""A small CNN that names what MiniFlux draws: things, colour, style, number, layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..miniflux.world import COLOURS, LAYOUTS, NUMBERS, STYLES, THINGS

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


class Recogniser(nn.Module):
    """One sigmoid a thing, read off the strongest place of its own map, and four softmax heads."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 160, 160)
        strides = (2, 2, 2, 1, 1)
        layers: list[nn.Module] = []
        for n_in, n_out, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, 5 if n_in == 3 else 3, stride, 2 if n_in == 3 else 1),
                nn.GroupNorm(8, n_out),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.things = nn.Conv2d(widths[-1], len(THINGS), 3, padding=1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * widths[-1], count) for name, count in HEADS.items()}
        )

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, 128, 128) in [0, 1] -> (B, 160, 16, 16)."""
        return self.body(pictures * 2 - 1)

    def forward(self, pictures: Tensor) -> Seen:
        """Look at pictures (B, 3, 128, 128) in [0, 1]."""
        x = self.features(pictures)
        maps = self.things(x).float()
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        heads = {name: head(pooled).float() for name, head in self.heads.items()}
        return Seen(maps, maps.amax((2, 3)), heads)
