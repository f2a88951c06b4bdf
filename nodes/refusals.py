"""What a person reads in the graph when a node refuses: our sentence alone.

The host puts an error's module before its message, in every toast and bug report.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from comfy_api.latest import io

from ..erase_core.errors import EraseError
from .language import said
from .places import shortened


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
            raise Refusal(said(shortened(str(error)))) from error

    node.execute = classmethod(execute)
    return node
