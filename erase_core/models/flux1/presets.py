"""FLUX.1's presets. Nobody has measured them on the real model yet; see methods/presets.py."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, Any] = {
    "eraseanything": {
        "fast": {"measured": "", "all": {"steps": 100}},
        "balanced": {"measured": "", "all": {}},
        "paper": {"measured": "", "all": {"steps": 1000, "l_attn": 5.0, "l_lora": 0.1}},
    }
}
