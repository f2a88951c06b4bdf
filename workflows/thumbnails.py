"""Draws the thumbnails of the template browser from real runs of the MiniFlux workflows.

    python workflows/thumbnails.py http://127.0.0.1:8188 [--steps N] [NAME ...]

Training takes minutes for each; ``--steps`` shortens it to a look at the layout. Workflows for
Flux.1-dev get a plain card: drawing theirs wants a GPU.
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
from PIL import Image, ImageDraw, ImageFont

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
        shown = _shown(options.url, name, options.steps) if model == "MiniFlux" else []
        card = _card(shown, model, what)
        card.save(FOLDER / f"{name}.jpg", quality=90)
        print(name, flush=True)


def _shown(url: str, name: str, steps: int | None) -> list[tuple[str, list[Image.Image]]]:
    """The pictures of a run by the titles of their nodes."""
    graph = json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))
    for node in graph.values():
        if steps and node["class_type"] == "EraseAnythingTrain":
            node["inputs"]["steps"] = steps
    outputs = _run(url, graph)
    return [
        (node["_meta"]["title"], [_fetch(url, image) for image in outputs[key]["images"]])
        for key, node in graph.items()
        if node["class_type"] == "PreviewImage"
    ]


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


def _card(shown: list[tuple[str, list[Image.Image]]], model: str, what: str) -> Image.Image:
    """Up to four pictures, the two halves side by side, and a title below."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    halves = [pictures for title, pictures in shown if title.startswith("Picture")]
    overlays = [pictures for title, pictures in shown if title == "Overlays"]
    columns = halves or [[picture] for picture in (overlays or [[]])[0][:2]]
    side = (SIDE - BAND) // 2
    left = (SIDE - 2 * side) // 3
    for column, pictures in enumerate(columns[:2]):
        for row in range(2):
            picture = pictures[row % len(pictures)] if halves or not row else None
            if picture is not None:
                place = (left + column * (side + left), row * side if halves else side // 2)
                card.paste(picture.resize((side, side), Image.Resampling.LANCZOS), place)
    big, small = ImageFont.load_default(30), ImageFont.load_default(24)
    if shown:
        text = (SIDE // 2, SIDE - BAND // 2)
        draw.text(text, what, INK, small, anchor="mm")
    else:
        draw.text((SIDE // 2, SIDE // 2 - 24), model, INK, big, anchor="mm")
        draw.text((SIDE // 2, SIDE // 2 + 24), what, INK, small, anchor="mm")
    return card


if __name__ == "__main__":
    main()
