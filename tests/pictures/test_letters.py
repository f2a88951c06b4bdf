"""Letters of a sheet: never a box, lines within their width, colours of the theme."""

from __future__ import annotations

import pytest
from PIL import Image

from erase_core.pictures import Row, grid, loss_chart
from erase_core.pictures.sheet import DARK, LIGHT, Theme, drawable, font, has, text_width, wrap

NOTHING = "\U0010fffe"  # a letter that no font has


def test_what_no_font_has_is_left_out() -> None:
    assert drawable("a tiger \U0001f42f") == ("a tiger", False)
    assert drawable("black cat \U0001f408\u200d\u2b1b") == ("black cat", False)
    assert drawable(NOTHING) == ("", False)
    assert not has("\u8001", wide=False)  # else the wide fonts would not be asked


def test_chinese_is_drawn_where_the_system_has_a_font() -> None:
    if not has("\u8001", wide=True):
        pytest.skip("no font with Chinese letters on this system")
    assert drawable("\u8001\u864e tiger") == ("\u8001\u864e tiger", True)
    old, tiger = (bytes(font(32, True).getmask(letter)) for letter in "\u8001\u864e")
    assert old != tiger  # boxes are all alike
    lines = wrap("\u4e00\u53ea\u8001\u864e\u5728\u96ea\u5c71\u4e0a\uff0c\u732b", 17, 80)
    assert len(lines) > 1 and all(text_width(line, 17) <= 80 for line in lines)
    assert "".join(lines) == "\u4e00\u53ea\u8001\u864e\u5728\u96ea\u5c71\u4e0a\uff0c\u732b"
    assert not any(line.startswith("\uff0c") for line in lines)


def test_words_are_never_broken() -> None:
    assert wrap("one two  three", 17, 1) == ["one", "two", "three"]
    assert wrap("one two", 17, 1000) == ["one two"]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_sheet_has_the_colours_of_its_theme(theme: Theme) -> None:
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    rows = [Row("a", [[picture]], section="s", note="n")]
    for sheet in (
        grid(rows, ("h",), title="t", theme=theme),
        loss_chart([{"esd": 1.0}, {"esd": 0.5}], title="t", theme=theme),
    ):
        colours = {colour for _, colour in sheet.getcolors(1 << 24) or ()}
        other = DARK if theme is LIGHT else LIGHT
        assert sheet.getpixel((1, 1)) == theme.paper
        assert theme.ink in colours and other.paper not in colours and other.ink not in colours
