"""FLUX.1's presets. Nobody has measured them on the real model yet; see methods/presets.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, Any] = {
    "eraseanything": {
        "fast": {"measured": "", "all": {"steps": 100}},
        "balanced": {"measured": "", "all": {}},
        "paper": {"measured": "", "all": {"steps": 1000, "l_attn": 5.0, "l_lora": 0.1}},
    }
}


def guided(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The presets for a family of other guidance, with its ``changes``, unmeasured."""
    return {
        method: {
            name: {"measured": "", "all": {**preset["all"], **changes}}
            for name, preset in presets.items()
        }
        for method, presets in PRESETS.items()
    }
