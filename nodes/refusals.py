"""What a person reads in the graph when a node refuses: our sentence alone.

The host puts an error's module before its message, in every toast and bug report.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..erase_core.errors import EraseError


class Refusal(EraseError):
    """A sentence without the names of the machine's folders."""


# As the host shows it: without a module, which only what Python has built in may lack.
Refusal.__module__, Refusal.__qualname__ = "builtins", "EraseAnything"


def plainly(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, which from now on raises Refusal for EraseError."""
    run: Any = node.execute.__func__

    @wraps(run)
    def execute(cls: Any, *args: Any, **inputs: Any) -> io.NodeOutput:
        try:
            return run(cls, *args, **inputs)
        except EraseError as error:
            raise Refusal(shortened(str(error))) from error

    node.execute = classmethod(execute)
    return node


def shortened(text: str) -> str:
    """``text`` with every file told from the host's own folder, or from home."""
    for folder, name in _folders().items():
        text = text.replace(f"{folder}/", name)
    return text


def _folders() -> dict[str, str]:
    """What stands for the host's folders, the longest path first."""
    output = Path(folder_paths.get_output_directory())
    told = {
        str(output.parent): "",
        str(Path(folder_paths.models_dir).parent): "",
        str(folder_paths.base_path): "",
        str(Path.home()): "~/",
    }
    return dict(sorted(told.items(), key=lambda item: -len(item[0])))
