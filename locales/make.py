"""Writes en/nodeDefs.json from what the nodes say of themselves; zh/ is written by hand.

python locales/make.py http://127.0.0.1:8188
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def english(info: dict[str, Any]) -> dict[str, Any]:
    """All nodes of /object_info that are ours, as the front end wants them translated."""
    return {name: _node(node) for name, node in info.items() if name.startswith("EraseAnything")}


def _node(node: dict[str, Any]) -> dict[str, Any]:
    groups = (node["input"].get(group, {}) for group in ("required", "optional"))
    inputs = {name: spec[1]["tooltip"] for group in groups for name, spec in group.items()}
    outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": tip} for name, tip in inputs.items()},
        "outputs": {
            str(index): {"name": name, "tooltip": tip} for index, (name, tip) in enumerate(outputs)
        },
    }


def main() -> None:
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as reply:
        texts = english(json.load(reply))
    path = FOLDER / "en" / "nodeDefs.json"
    path.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
