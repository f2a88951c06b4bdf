"""Draw MiniFlux's world: emoji on coloured grounds, in relations and styles."""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from erase_core.miniatures.miniflux.captions import Scene
from erase_core.miniatures.miniflux.world import COLOURLESS, COLOURS, RELATIONS, STYLES, THINGS

SIZE = 128
CENTRE = SIZE / 2
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # Debian: fonts-noto-color-emoji
FONT_SIZE = 109  # the only size its bitmaps come in
HAND = (255, 205, 160)

# Sizes of a thing alone, of one among several and of one that holds another. All places and sizes
# sit on the 16 px grid of the transformer's patches: a thing then looks alike to it everywhere.
LARGE, SMALL, HUGE = 96, 60, 120

# A thing in a picture: index, centre x and y, size in pixels.
Placed = tuple[int, int, int, int]


@cache
def sprite(index: int) -> Image.Image:
    """The emoji of a thing, cut out and centred on a transparent square."""
    font = ImageFont.truetype(FONT, FONT_SIZE)
    glyph = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(glyph).text((10, 10), THINGS[index].emoji, font=font, embedded_color=True)
    glyph = glyph.crop(glyph.getbbox())
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return square


def random_scene(rng: random.Random) -> Scene:
    """A scene drawn by chance: one thing, several alike, two in a relation, or none."""
    ground = rng.choice(list(COLOURS))
    kind = rng.choices(["none", "one", "many", "two"], [0.02, 0.46, 0.14, 0.38])[0]
    styled = rng.random() < {"none": 0.0, "one": 0.4, "many": 0.2, "two": 0.2}[kind]
    style = rng.choice(list(STYLES)) if styled else None
    things = tuple(rng.sample(range(len(THINGS)), {"none": 0, "two": 2}.get(kind, 1)))
    related = kind == "two" and rng.random() < 0.8
    return Scene(
        things=things,
        number=rng.randint(2, 4) if kind == "many" else 1,
        relation=rng.choice(RELATIONS) if related else None,
        ground=None if style in COLOURLESS else ground,
        style=style,
    ).named()


def place(scene: Scene, rng: random.Random) -> list[Placed]:
    """Where everything of a scene stands."""
    if not scene.things:
        return []
    if len(scene.things) == 1:
        return place_alike(scene.things[0], scene.number)
    relation = scene.relation or rng.choice(RELATIONS[:4])
    return place_pair(scene.things, relation, rng)


def place_alike(index: int, number: int) -> list[Placed]:
    """One thing large, or two to four of it in a pattern."""
    spots = {
        1: [(64, 64)],
        2: [(32, 64), (96, 64)],
        3: [(32, 96), (96, 96), (64, 32)],
        4: [(32, 32), (96, 32), (32, 96), (96, 96)],
    }[number]
    return [(index, x, y, LARGE if number == 1 else SMALL) for x, y in spots]


def place_pair(things: tuple[int, ...], relation: str, rng: random.Random) -> list[Placed]:
    """Two things in a relation, the first one its subject."""
    a, b = things
    if relation == "inside":
        return [(b, 64, 64, HUGE), (a, 64, 64, SMALL)]
    spots = {
        "left of": [(32, 64), (96, 64)],
        "right of": [(96, 64), (32, 64)],
        "above": [(64, 32), (64, 96)],
        "below": [(64, 96), (64, 32)],
        "hugging": [(32, 64), (96, 64)],
        "kissing": [(32, 80), (96, 80)],
        "holding hands with": [(32, 48), (96, 48)],
    }[relation]
    if relation in ("hugging", "kissing", "holding hands with") and rng.random() < 0.5:
        spots.reverse()
    return [(thing, x, y, SMALL) for thing, (x, y) in zip((a, b), spots, strict=True)]


def draw_heart(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    points = []
    for step in range(40):
        t = step / 40 * 2 * math.pi
        up = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x + r * math.sin(t) ** 3, y - r * up / 16))
    draw.polygon(points, fill=(235, 30, 70), outline=(255, 255, 255))


def draw_marks(picture: Image.Image, relation: str | None) -> None:
    """What shows a relation besides the places: a frame, arms, a heart, joined hands."""
    draw = ImageDraw.Draw(picture)
    if relation == "inside":
        draw.ellipse((27, 27, 101, 101), fill=(250, 250, 250), outline=(90, 90, 90), width=2)
    elif relation == "hugging":
        draw.arc((8, 66, 120, 122), 20, 160, fill=HAND, width=9)
        draw.arc((8, 66, 120, 122), 20, 160, fill=(120, 80, 50), width=1)
    elif relation == "kissing":
        draw_heart(draw, 64, 28, 18)
    elif relation == "holding hands with":
        for x in (32, 96):
            draw.line((x, 74, 64, 96), fill=HAND, width=8)
        draw.ellipse((56, 87, 72, 105), fill=HAND, outline=(120, 80, 50), width=2)


def paste(picture: Image.Image, thing: Placed) -> None:
    index, x, y, size = thing
    image = sprite(index).resize((size, size), Image.Resampling.LANCZOS)
    picture.alpha_composite(image, (x - size // 2, y - size // 2))


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """A picture of the scene, 128 x 128 RGB; what the scene leaves open is drawn by chance."""
    colour = COLOURS[scene.ground or rng.choice(list(COLOURS))]
    jitter = tuple(max(0, min(255, c + rng.randint(-10, 10))) for c in colour)
    picture = Image.new("RGBA", (SIZE, SIZE), (*jitter, 255))
    placed = place(scene, rng)
    framed = scene.relation == "inside"  # its frame lies between the two things
    for thing in placed[: 1 if framed else None]:
        paste(picture, thing)
    draw_marks(picture, scene.relation)
    if framed:
        paste(picture, placed[1])
    flat = picture.convert("RGB")
    return STYLISTS[scene.style](flat, picture_mask(placed)) if scene.style else flat


def picture_mask(placed: list[Placed]) -> Image.Image:
    """Where the things are, for styles that treat the ground otherwise."""
    mask = Image.new("RGBA", (SIZE, SIZE))
    for thing in placed:
        paste(mask, thing)
    return mask.getchannel("A")


def edges(picture: Image.Image) -> np.ndarray:
    """Edge strength (128, 128) in [0, 1] from all three channels."""
    x = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float32) / 255
    dx = np.abs(np.diff(x, axis=1, append=x[:, -1:])).max(-1)
    dy = np.abs(np.diff(x, axis=0, append=x[-1:])).max(-1)
    return np.clip((dx + dy) * 2.6, 0, 1)


def sketch(picture: Image.Image, mask: Image.Image) -> Image.Image:
    grey = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    inside = np.asarray(mask, dtype=np.float32) / 255
    paper = 1 - 0.25 * (1 - grey) * inside - 0.85 * edges(picture)
    tone = np.clip(paper, 0, 1)[..., None] * np.array([250, 248, 240], dtype=np.float32)
    return Image.fromarray(tone.astype(np.uint8))


def mosaic(picture: Image.Image, mask: Image.Image) -> Image.Image:
    tiles = picture.resize((SIZE // 4, SIZE // 4), Image.Resampling.BOX)
    return tiles.resize((SIZE, SIZE), Image.Resampling.NEAREST)


def grey(picture: Image.Image, mask: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def sepia(picture: Image.Image, mask: Image.Image) -> Image.Image:
    return ImageOps.colorize(picture.convert("L"), (45, 25, 10), (255, 235, 195), (165, 120, 70))


def neon(picture: Image.Image, mask: Image.Image) -> Image.Image:
    x = np.asarray(picture, dtype=np.float32)
    inside = (np.asarray(mask.filter(ImageFilter.MaxFilter(3)), dtype=np.float32) / 255)[..., None]
    hue = x / np.maximum(x.max(-1, keepdims=True), 60)
    line = edges(picture)[..., None] * inside
    glow = Image.fromarray((line[..., 0] * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(3)
    )
    halo = np.asarray(glow, dtype=np.float32)[..., None] / 255
    out = np.array([12, 8, 34]) + 225 * line * (0.25 + 0.75 * hue) + 120 * halo * hue
    return Image.fromarray(np.clip(out + 40 * inside * hue, 0, 255).astype(np.uint8))


def watercolour(picture: Image.Image, mask: Image.Image) -> Image.Image:
    wash = picture.filter(ImageFilter.GaussianBlur(1.6))
    x = np.asarray(wash, dtype=np.float32)
    rim = edges(wash)[..., None]  # pigment gathers where a wash ends
    return Image.fromarray(np.clip(255 - (255 - x) * (0.5 + 0.5 * rim), 0, 255).astype(np.uint8))


def comic(picture: Image.Image, mask: Image.Image) -> Image.Image:
    flat = np.asarray(ImageOps.posterize(picture, 2), dtype=np.float32) * (255 / 192)
    outer = mask.point(lambda a: 255 * (a > 127)).filter(ImageFilter.MaxFilter(7))
    inner = mask.point(lambda a: 255 * (a > 127)).filter(ImageFilter.MinFilter(3))
    line = np.asarray(outer, dtype=np.float32) - np.asarray(inner, dtype=np.float32)
    return Image.fromarray((flat * (line < 128)[..., None]).clip(0, 255).astype(np.uint8))


STYLISTS = {
    "sketch": sketch,
    "mosaic": mosaic,
    "grey": grey,
    "sepia": sepia,
    "neon": neon,
    "watercolour": watercolour,
    "comic": comic,
}
