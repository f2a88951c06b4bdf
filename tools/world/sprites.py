"""Draw the sprite pack: every thing in every artist's hand, every person in several clothes.

    python -m tools.world.sprites --npm FOLDER --out FOLDER

``--npm`` is a folder in which ``npm install`` put the packages that README.md names.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from .world import ARTISTS, ENTITIES, FOLDER, PEOPLE, THINGS

SIDE = 112
CLOTHES = 12  # variants of each person
RENAMED = {("emojione", "robot"): "robot-face"}
INK = {"": "#16161a", "/light": "#f4f4f4"}  # line art is drawn in either, to suit the ground


def draw(svg: str) -> Image.Image:
    """An SVG as RGBA, cut to what it shows and centred on a square of SIDE pixels."""
    import resvg_py

    drawn = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE))
    image = Image.open(io.BytesIO(drawn)).convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(
        image.resize(size, Image.Resampling.LANCZOS),
        ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2),
    )
    return square


@cache
def _icons(folder: Path) -> dict:
    return json.loads((folder / "icons.json").read_text())


def emoji(folder: Path, name: str, ink: str) -> str:
    """The SVG of an icon of an Iconify set."""
    icons = _icons(folder)
    name = name if name in icons["icons"] else icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    body = icon["body"].replace("currentColor", ink)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def pack(npm: Path) -> dict[str, Image.Image]:
    """All sprites: ``artist/entity/variant`` (``/light`` after it for line art in white) and
    ``person/variant``."""
    sprites = {}
    for artist, icons in ARTISTS.items():
        folder = npm / "node_modules" / "@iconify-json" / icons
        for index in THINGS:
            entity = ENTITIES[index]
            for variant, name in enumerate(entity.sprites):
                name = RENAMED.get((icons, name), name)
                for suffix, ink in INK.items():
                    if not suffix or icons.endswith("high-contrast"):
                        key = f"{artist}/{entity.name}/{variant}{suffix}"
                        sprites[key] = draw(emoji(folder, name, ink))
    script = npm / "people.mjs"  # node finds the packages beside the script
    script.write_text((FOLDER / "people.mjs").read_text())
    command = ["node", str(script), str(FOLDER / "people.txt"), str(CLOTHES)]
    avatars = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for index in PEOPLE:
        for variant, svg in enumerate(avatars[ENTITIES[index].name]):
            sprites[f"{ENTITIES[index].name}/{variant}"] = draw(svg)
    return sprites


def licences(npm: Path) -> list[dict[str, str]]:
    """Package, version, licence and author of every set in the pack."""
    rows = []
    avatars = sorted({ENTITIES[index].sprites[0] for index in PEOPLE})
    names = [f"@iconify-json/{icons}" for icons in ARTISTS.values()]
    for name in names + [f"@dicebear/{avatar}" for avatar in avatars]:
        folder = npm / "node_modules" / name
        version = json.loads((folder / "package.json").read_text())["version"]
        if (folder / "info.json").exists():
            info = json.loads((folder / "info.json").read_text())
            licence, author = info["license"]["title"], info["author"]["name"]
        else:
            lines = (folder / "LICENSE").read_text().splitlines()
            told = dict(line.split(": ", 1) for line in lines if ": " in line)
            licence, author = told["License"].split(" (")[0], told["Designer"].split(" (")[0]
        rows.append({"package": name, "version": version, "licence": licence, "author": author})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npm", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sprites = pack(args.npm)
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out / "sprites.npz",
        keys=np.array(list(sprites)),
        pixels=np.stack([np.asarray(image) for image in sprites.values()]),
    )
    (args.out / "licences.json").write_text(json.dumps(licences(args.npm), indent=1))
    print(f"{len(sprites)} sprites")


if __name__ == "__main__":
    main()
