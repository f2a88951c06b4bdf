"""Three recognisers of different build: for exams, for a second opinion, for alignment only.

Each gives one map an entity (things, spooky ones and people alike) and heads for artist, ground
colour, number, layout and kind of ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .scene import Scene
from .world import ARTISTS, COLOURS, ENTITIES, GROUNDS, LAYOUT_OF, LAYOUTS, THINGS

HEADS: dict[str, int] = {
    "artist": len(ARTISTS),
    "colour": len(COLOURS),
    "number": 5,  # none to four
    "layout": len(LAYOUTS),
    "ground": len(GROUNDS),
}


@dataclass(frozen=True)
class Seen:
    """Logits: ``entities`` (B, E) of their ``maps`` (B, E, h, w), ``heads`` (B, classes) each; and
    the ``features`` (B, C, 8, 8) they were read from."""

    entities: Tensor
    maps: Tensor
    heads: dict[str, Tensor]
    features: Tensor


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Targets: ``entities`` (N, E) of 0 and 1, heads (N,) with -1 for what a scene leaves open."""
    entities = torch.zeros(len(scenes), len(ENTITIES))
    for row, scene in enumerate(scenes):
        entities[row, list(scene.shown)] = 1
    artists, colours, grounds = list(ARTISTS), list(COLOURS), list(GROUNDS)
    return {
        "entities": entities,
        "artist": torch.tensor([artists.index(s.artist) if _by(s) else -1 for s in scenes]),
        "colour": torch.tensor([colours.index(s.colour) if s.colour else -1 for s in scenes]),
        "number": torch.tensor([_number(s) for s in scenes]),
        "layout": torch.tensor([_layout(s) for s in scenes]),
        "ground": torch.tensor([grounds.index(s.ground) if s.ground else -1 for s in scenes]),
    }


def _by(scene: Scene) -> bool:
    return scene.artist is not None and any(index in THINGS for index in scene.shown)


def _number(scene: Scene) -> int:
    return -1 if len(scene.shown) > 1 else scene.number * len(scene.shown)


def _layout(scene: Scene) -> int:
    if scene.relation:
        return LAYOUTS.index(LAYOUT_OF[scene.relation])
    return 0 if len(scene.shown) < 2 and scene.number == 1 else -1


class Recogniser(nn.Module):
    """A backbone from pictures to (B, width, 8, 8), with a map an entity and the heads on it."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.maps = nn.Conv2d(width, len(ENTITIES), 1)
        self.heads = nn.ModuleDict({name: nn.Linear(2 * width, n) for name, n in HEADS.items()})
        nn.init.constant_(self.maps.bias, -8.0)

    def forward(self, pictures: Tensor) -> Seen:
        """(B, 3, 128, 128) in [0, 1] to what is seen in them."""
        features = self.backbone(pictures * 2 - 1)
        maps = self.maps(features).float()
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        heads = {name: head(pooled).float() for name, head in self.heads.items()}
        return Seen(maps.flatten(2).logsumexp(-1), maps, heads, features)


def conv(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


def double_convolutions(widths: tuple[int, ...] = (32, 64, 128)) -> nn.Sequential:
    """Pictures of half the size, then three times a strided and a plain convolution."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    n_in = 3
    for width in widths:
        layers += [conv(n_in, width, 2), conv(width, width)]
        n_in = width
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions and a gate over channels, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            conv(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.gate = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return torch.relu(x + y * self.gate(y.mean((2, 3))).sigmoid()[:, :, None, None])


def residual(widths: tuple[int, ...] = (24, 48, 96, 160)) -> nn.Sequential:
    """Strided convolutions with a gated residual block after each but the first."""
    layers: list[nn.Module] = [conv(3, widths[0], 2)]
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [conv(n_in, n_out, 2), Residual(n_out)]
    return nn.Sequential(*layers)


class Attentive(nn.Module):
    """Few convolutions down to 16 x 16 cells, then a transformer over them, then 8 x 8."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, 2), conv(24, 48, 2), conv(48, width, 2))
        self.place = nn.Parameter(torch.randn(1, 256, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 3 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Conv2d(width, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x).transpose(1, 2).unflatten(2, (16, 16)))


def build(name: str) -> Recogniser:
    """The recogniser "exam", "second" or "align"."""
    if name == "exam":
        return Recogniser(residual(), 160)
    if name == "second":
        return Recogniser(Attentive(), 128)
    return Recogniser(double_convolutions(), 128)
