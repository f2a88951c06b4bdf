"""Charts and panels show a loss in one colour, under one name."""

from __future__ import annotations

import re
from pathlib import Path

from erase_core.pictures.palette import COLOURS, WORDS

WEB = Path(__file__).parents[2] / "web"


def test_the_panels_have_the_charts_colours() -> None:
    css = (WEB / "eraseanything.css").read_text(encoding="utf-8")
    found = dict(re.findall(r"--erase-(\w+): color-mix\(in srgb, (#\w{6})", css))
    assert found == dict(COLOURS)


def test_the_panels_have_the_charts_words() -> None:
    text = (WEB / "text.js").read_text(encoding="utf-8").split("zh: {")[0]
    curves = (WEB / "curves.js").read_text(encoding="utf-8")
    for loss, key in re.findall(r'\["(\w+)", "(\w+)"\]', curves):
        assert f'{key}: "{WORDS[loss]}"' in text
