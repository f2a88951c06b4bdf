"""EraseAnything for ComfyUI: this folder is the custom-node package.

Without a ComfyUI around it (tests, tools) it is an empty package.
"""

from importlib.util import find_spec

if find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
