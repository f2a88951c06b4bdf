"""The losses' colours and words, the same in charts and in the panels of ``web/``.

``tests/pictures/test_palette.py`` holds ``web/eraseanything.css`` and ``web/text.js`` to them.
"""

from __future__ import annotations

from collections.abc import Mapping

# Loss -> colour.
COLOURS: Mapping[str, str] = {
    "esd": "#f4624a",
    "attn": "#e39a1c",
    "lora": "#2fae78",
    "rsc": "#4f86f0",
    "adv": "#a06bd6",
}
# Loss -> what people call it.
WORDS: Mapping[str, str] = {
    "esd": "Forget",
    "attn": "Attention",
    "lora": "Keep",
    "rsc": "Synonyms",
    "adv": "Attack",
}
