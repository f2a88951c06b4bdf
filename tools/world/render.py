"""Draw scenes: sprites at places and in sizes that chance chooses, on grounds of a colour."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .scene import Scene
from .world import COLOURS, ENTITIES

SIZE = 128
GRID = 16  # a token's side, on which every edge of a sprite lies, or shapes take ten times longer
SMALL, MIDDLE, LARGE = 48, 64, 96  # sides of sprites
HAND = (255, 205, 160)
OUTLINE = (120, 80, 50)
CORNERS = {  # in grid steps from the middle
    "middle": (0, 0),
    "top left": (-2, -2),
    "top right": (2, -2),
    "bottom left": (-2, 2),
    "bottom right": (2, 2),
}
SIDES = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}  # to the second
RAISED = {"kissing": GRID, "holding hands with": -GRID}  # what is drawn beside them needs room


@dataclass(frozen=True)
class Placed:
    """An entity with its centre and size in pixels."""

    entity: int
    x: int
    y: int
    size: int


class Sprites:
    """The sprite pack: RGBA squares by ``artist/entity/variant`` or ``person/variant``."""

    def __init__(self, pictures: Mapping[str, Image.Image]) -> None:
        self.pictures = pictures
        self.variants: dict[str, list[str]] = {}
        for key in pictures:
            self.variants.setdefault(key.rsplit("/", 1)[0], []).append(key)

    @classmethod
    def load(cls, path: Path) -> Sprites:
        data = np.load(path)
        pairs = zip(data["keys"].tolist(), data["pixels"], strict=True)
        return cls({key: Image.fromarray(pixels) for key, pixels in pairs})

    def choose(
        self, entity: int, artist: str | None, light: bool, rng: random.Random
    ) -> Image.Image:
        """One variant of an entity; line art in white where the ground is dark."""
        name = ENTITIES[entity].name
        group = name if ENTITIES[entity].kind == "person" else f"{artist}/{name}"
        key = rng.choice(self.variants[group])
        return self.pictures[f"{key}/light" if light and f"{key}/light" in self.pictures else key]


def place(scene: Scene, rng: random.Random) -> list[Placed]:
    """Where everything of a scene stands, the hindmost first."""
    if scene.relation:
        return place_pair(scene, rng)
    if scene.place:
        x, y = CORNERS[scene.place]
        return [Placed(scene.subjects[0], 64 + GRID * x, 64 + GRID * y, MIDDLE)]
    if scene.subjects and scene.number == 1 and not scene.spooky:
        return [anywhere(scene.subjects[0], rng.choice((MIDDLE, LARGE)), rng)]
    entities = list(scene.subjects * scene.number + scene.spooky)
    if len(entities) == 1:
        return [anywhere(entities[0], rng.choice((MIDDLE, LARGE)), rng)]
    return scatter(entities, rng)


def anywhere(entity: int, size: int, rng: random.Random) -> Placed:
    """At any place on the grid in which nothing is cut off."""
    x, y = (GRID * rng.randint(0, (SIZE - size) // GRID) + size // 2 for _ in range(2))
    return Placed(entity, x, y, size)


def scatter(entities: list[int], rng: random.Random) -> list[Placed]:
    """Several things at chance places, which overlap a little at most."""
    size = MIDDLE if len(entities) == 2 else SMALL
    for attempt in range(1000):
        spots = [anywhere(entity, size, rng) for entity in entities]
        gaps = (math.dist((a.x, a.y), (b.x, b.y)) for i, a in enumerate(spots) for b in spots[:i])
        if min(gaps, default=size) >= size * (0.95 - 0.0002 * attempt):
            break
    return spots


def place_pair(scene: Scene, rng: random.Random) -> list[Placed]:
    """Two in a relation: the first is its subject. What holds another stands behind it."""
    a, b = scene.subjects
    if scene.relation == "inside":
        return [Placed(b, 64, 64, SIZE), Placed(a, 64, 64, MIDDLE)]
    size, half = rng.choice(((MIDDLE, (-GRID, 0, GRID)), (SMALL, (-GRID // 2, GRID // 2))))
    away, raised = rng.choice(half), RAISED.get(scene.relation or "", 0)
    x, y = SIDES.get(scene.relation or "", (rng.choice((-1, 1)), 0))
    return [
        Placed(
            entity,
            64 + (sign * x * size // 2 if x else away),
            64 + raised + (sign * y * size // 2 if y else away),
            size,
        )
        for entity, sign in ((a, -1), (b, 1))
    ]


def shade(colour: tuple[int, ...], by: float) -> tuple[int, int, int]:
    """A colour moved towards white (by > 0) or black."""
    goal = 255 if by > 0 else 0
    red, green, blue = (round(c + (goal - c) * abs(by)) for c in colour)
    return red, green, blue


def ground(colour: str, kind: str, rng: random.Random) -> Image.Image:
    """A plain, graded, striped, dotted or checked ground of a colour, 128 x 128 RGBA."""
    base = tuple(max(0, min(255, c + rng.randint(-12, 12))) for c in COLOURS[colour])
    sign = 1 if colour == "black" else rng.choice((-1, 1))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    angle = rng.choice((0, 45, 90, 135)) * math.pi / 180
    along = rows * math.sin(angle) + columns * math.cos(angle)
    step = rng.choice((GRID // 2, GRID))
    if kind == "gradient":
        mix = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        mix = (along // step % 2).astype(np.float32)
    elif kind == "dots":
        centre = (np.hypot(rows % step - step / 2, columns % step - step / 2)) < step * 0.28
        mix = centre.astype(np.float32)
    elif kind == "checks":
        mix = ((rows // step + columns // step) % 2).astype(np.float32)
    else:
        mix = np.zeros((SIZE, SIZE), np.float32)
    other = shade(base, sign * (0.5 if kind == "gradient" else 0.28))
    pixels = np.array(base) * (1 - mix[..., None]) + np.array(other) * mix[..., None]
    return Image.fromarray(pixels.round().astype(np.uint8)).convert("RGBA")


def paste(picture: Image.Image, sprite: Image.Image, spot: Placed, rng: random.Random) -> None:
    """A sprite at its spot, mirrored by chance."""
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.resize((spot.size, spot.size), Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", picture.size)
    layer.paste(sprite, (spot.x - sprite.width // 2, spot.y - sprite.height // 2))
    picture.alpha_composite(layer)


def heart(x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The outline of a heart of half width r around (x, y)."""
    points = []
    for step in range(40):
        t = step / 40 * 2 * math.pi
        up = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x + r * math.sin(t) ** 3, y - r * up / 16))
    return points


def marks(picture: Image.Image, relation: str | None, spots: list[Placed]) -> None:
    """What shows a relation besides the places: a frame, arms, a heart, joined hands."""
    if relation is None or len(spots) < 2:
        return
    draw = ImageDraw.Draw(picture)
    x = sum(spot.x for spot in spots[:2]) / 2
    y = sum(spot.y for spot in spots[:2]) / 2
    if relation == "inside":
        draw.ellipse((27, 27, 101, 101), fill=(250, 250, 250), outline=(90, 90, 90), width=2)
    elif relation == "hugging":
        box = (x - 52, y + 4, x + 52, y + 50)
        draw.arc(box, 20, 160, fill=HAND, width=9)
        draw.arc(box, 20, 160, fill=OUTLINE, width=1)
    elif relation == "kissing":
        draw.polygon(heart(x, y - 44, 17), fill=(235, 30, 70), outline=(255, 255, 255))
    elif relation == "holding hands with":
        for spot in spots[:2]:
            draw.line((spot.x, y + 24, x, y + 44), fill=HAND, width=8)
        draw.ellipse((x - 9, y + 35, x + 9, y + 53), fill=HAND, outline=OUTLINE, width=2)


def render(scene: Scene, sprites: Sprites, rng: random.Random) -> Image.Image:
    """A picture of the scene, 128 x 128 RGB; what it leaves open is drawn by chance."""
    colour = scene.colour or rng.choice(list(COLOURS))
    picture = ground(colour, scene.ground or "plain", rng)
    light = colour in ("black", "blue", "purple")
    spots = place(scene, rng)
    for index, spot in enumerate(spots):
        if index == 1 and scene.relation == "inside":
            marks(picture, scene.relation, spots)
        white = light and not (index == 1 and scene.relation == "inside")
        paste(picture, sprites.choose(spot.entity, scene.artist, white, rng), spot, rng)
    if scene.relation != "inside":
        marks(picture, scene.relation, spots)
    return picture.convert("RGB")
