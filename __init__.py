"""EraseAnything for ComfyUI: this folder is the custom-node package."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__all__ = ["NODE_CLASS_MAPPINGS"]
