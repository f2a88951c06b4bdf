"""What a run left behind: LoRA files and pictures."""

from __future__ import annotations

from pathlib import Path

from host.client import Client, Run
from PIL import Image


def loras(server: Client) -> Path:
    return server.base / "models" / "loras"


def picture(server: Client, run: Run) -> Image.Image:
    """The picture of node "save"."""
    (saved,) = run.ui("save")["images"]
    return Image.open(server.base / "output" / saved["filename"]).convert("RGB")


def difference(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures, 0 to 255."""
    pairs = zip(a.tobytes(), b.tobytes(), strict=True)
    return max(abs(x - y) for x, y in pairs)
