"""What nodes/language.py makes of sentences, in the host's process; see inside.py.

python language.py language HOST PACKAGE BASE OUT
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inside  # the host's process

# isort: split
import json

import folder_paths
from eraseanything.erase_core.pictures import Row, grid, loss_chart
from eraseanything.erase_core.pictures.sheet import has
from eraseanything.nodes import drawing
from eraseanything.nodes.language import SETTING, chinese
from PIL import Image, ImageChops

ASKED = {
    "plain": "The prompt is empty; write what to draw.",
    "blank": "/models/a.safetensors is damaged: lora_A holds NaN or infinity; download or make it "
    "again.",
    "nested": "x.safetensors is a GGUF file, whose quantised weights cannot be trained on; choose "
    "a Chroma1-HD, FLUX.1 or Z-Image transformer in safetensors format.",
    "estimate": "about 1 h 5 min, 82 MB of memory for the model and its training, 15 MB of RAM for "
    "states and the model's blocks, 1 MB on disk",
    "own": 'The judge has no class called "done"; choose another judge.',
    "named": "set.json: concepts must be a list of concepts.",
    "unknown": "CUDA error: out of memory",
    "chinese": "提示词为空；请写出要画的内容。",
}


def language_said() -> dict[str, str]:
    """Each of them in Chinese."""
    return {name: chinese(text) for name, text in ASKED.items()}


def language_sheets() -> dict[str, Any]:
    """How far a chart and a grid differ between pages in two languages, and from each other's."""
    settings = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    before = settings.read_bytes() if settings.exists() else b"{}"
    drawn = {}
    try:
        for language in ("zh", "en"):
            settings.write_text(json.dumps({SETTING: language}))
            drawn[language] = _drawn(drawing.theme())
    finally:
        settings.write_bytes(before)
    plain = _drawn(drawing.DARK)
    pairs = zip(("chart", "grid"), drawn["zh"], drawn["en"], strict=True)
    found: dict[str, Any] = {name: _difference(*both) for name, *both in pairs}
    found["english"] = max(map(_difference, drawn["en"], plain))
    return found | {"letters": has("\u6982", True)}


def _drawn(theme: Any) -> list[Image.Image]:
    cell = Image.new("RGB", (64, 64))
    rows = [Row("a tiger", [[cell], [cell]], section="Acc_e \u2193 the concept")]
    history = [{"esd": 0.5, "lora": 0.1}] * 3
    return [
        loss_chart(history, title="Erasing “tiger”", theme=theme),
        grid(rows, ("before", "after 3"), theme=theme),
    ]


def _difference(a: Image.Image, b: Image.Image) -> int:
    assert a.size == b.size
    return max(high for _, high in ImageChops.difference(a, b).getextrema())


if __name__ == "__main__":
    inside.main(globals())
