"""Draws the thumbnails of the template browser from real runs of the MiniFlux workflows.

    python workflows/thumbnails.py http://127.0.0.1:8188 [--steps N] [NAME ...]

Training takes minutes for each; ``--steps`` shortens it to a look at the layout. Workflows for
other models show their graph: drawing their pictures wants a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import urllib.parse
import urllib.request
from typing import Any

from files import FOLDER
from layout import TITLE
from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE, BAND = 512, 56  # pixels: the picture, the title below it
INK, PAPER = (240, 240, 240), (30, 32, 36)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--steps", type=int, help="of each training")
    options = parser.parse_intermixed_args()
    names = options.names or sorted(path.stem for path in FOLDER.glob("*.json"))
    for name in names:
        model, _, what = name.partition(" ")
        mini = model == "MiniFlux"
        card = (
            _card(_shown(options.url, name, options.steps), what)
            if mini
            else _plan(name, model, what)
        )
        card.save(FOLDER / f"{name}.jpg", quality=90)
        print(name, flush=True)


def _shown(url: str, name: str, steps: int | None) -> list[list[Image.Image]]:
    """Columns of pictures from a run: without and with the eraser, or whatever it shows."""
    graph = json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))
    compared = [key for key, node in graph.items() if node["class_type"] == "EraseAnythingPreview"]
    for key in compared:
        graph[f"{key} apart"] = {"class_type": "PreviewImage", "inputs": {"images": [key, 1]}}
    for node in graph.values():
        if steps and node["class_type"] == "EraseAnythingTrain":
            node["inputs"]["steps"] = steps
    outputs = _run(url, graph)
    pictures = {
        key: [_fetch(url, image) for image in output["images"]]
        for key, output in outputs.items()
        if output.get("images")
    }
    if compared:
        every, levels = pictures[f"{compared[0]} apart"], graph[compared[0]]["inputs"]["strengths"]
        part = len(every) // len(levels.split(","))
        return [every[:part], every[-part:]]
    titles = {key: graph[key]["_meta"]["title"] for key in pictures}
    halves = [pictures[key] for key, title in titles.items() if title.startswith("Picture")]
    overlays = [[p] for key, title in titles.items() if title == "Overlays" for p in pictures[key]]
    return halves or overlays or [*pictures.values()]


def _run(url: str, graph: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/prompt",
        json.dumps({"prompt": graph}).encode(),
        {"Content-Type": "application/json"},
    )
    number = json.load(urllib.request.urlopen(request))["prompt_id"]
    while True:
        history = json.load(urllib.request.urlopen(f"{url}/history/{number}"))
        if number in history:
            if history[number]["status"]["status_str"] != "success":
                raise SystemExit(history[number]["status"]["messages"][-1])
            return history[number]["outputs"]
        time.sleep(1)


def _fetch(url: str, image: dict[str, str]) -> Image.Image:
    with urllib.request.urlopen(f"{url}/view?{urllib.parse.urlencode(image)}") as reply:
        return Image.open(io.BytesIO(reply.read())).convert("RGB")


def _card(columns: list[list[Image.Image]], what: str) -> Image.Image:
    """Up to two columns of two pictures, and a title below."""
    card, draw = _empty(what)
    side = (SIDE - BAND) // 2
    columns = columns[:2]
    left = (SIDE - len(columns) * side) // (len(columns) + 1)
    for column, pictures in enumerate(columns):
        pictures = pictures[:2]
        for row, picture in enumerate(pictures):
            room = (side, side) if len(columns) > 1 else (SIDE - 40, SIDE - BAND - 20)
            fitted = ImageOps.contain(picture, room, Image.Resampling.LANCZOS)
            y = row * side if len(pictures) > 1 else (SIDE - BAND - fitted.height) // 2
            x = left + column * (side + left) if len(columns) > 1 else (SIDE - fitted.width) // 2
            card.paste(fitted, (x, y))
    return card


def _plan(name: str, model: str, what: str) -> Image.Image:
    """The graph in small, with the model's name."""
    graph = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    card, draw = _empty(what)
    right, bottom = (
        max(group["bounding"][side] + group["bounding"][side + 2] for group in graph["groups"])
        for side in (0, 1)
    )
    scale = min((SIDE - 48) / right, (SIDE - BAND - 100) / bottom)
    left, top = (SIDE - scale * right) / 2, 80 + (SIDE - BAND - 100 - scale * bottom) / 2

    def box(x: float, y: float, width: float, height: float, colour: str | tuple[int, ...]) -> None:
        corner = left + scale * x, top + scale * y
        draw.rounded_rectangle(
            (*corner, corner[0] + scale * width, corner[1] + scale * height), 4, colour
        )

    for group in graph["groups"]:
        box(*group["bounding"], group["color"])
    for node in graph["nodes"]:
        height = 0 if node["flags"].get("collapsed") else node["size"][1]
        colour = "#a08040" if node["type"] == "MarkdownNote" else PAPER
        box(node["pos"][0], node["pos"][1] - TITLE, node["size"][0], height + TITLE, colour)
    draw.text((SIDE // 2, 40), model, INK, ImageFont.load_default(34), anchor="mm")
    return card


def _empty(what: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A card that says below what it is."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    draw.text((SIDE // 2, SIDE - BAND // 2), what, INK, ImageFont.load_default(24), anchor="mm")
    return card, draw


if __name__ == "__main__":
    main()
