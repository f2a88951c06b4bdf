"""Save Eraser: a LORA_MODEL as a file of the LoRA list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..erase_core.errors import EraseError
from ..erase_core.tensors import save_tensors
from ..erase_core.writing import claim
from . import eraser, inputs, places


class Save(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingSave",
            display_name="Save Eraser",
            category=inputs.CATEGORY,
            description="Saves an eraser, with what it knows about itself, where the LoRA list "
            "finds it.",
            inputs=[
                eraser.SOCKET.Input("lora", tooltip="The eraser to save."),
                inputs.name_input("eraser"),
                inputs.folder_input(),
            ],
            outputs=[
                io.String.Output(display_name="file", tooltip="The file as the LoRA list names it.")
            ],
            is_output_node=True,
            **inputs.aliases("save lora", "export lora"),
        )

    @classmethod
    def execute(
        cls, lora: Mapping[str, Tensor], filename_prefix: str, folder: str
    ) -> io.NodeOutput:
        if not lora:
            raise EraseError("The eraser is empty; train one first.")
        path = places.free_name(places.lora_folder(folder), filename_prefix)
        metadata: Any = getattr(lora, "metadata", {"format": "pt"})
        with claim(path):
            save_tensors(path, lora, metadata)
        told = {"file": places.lora_name(path), "path": str(path)}
        return io.NodeOutput(told["file"], ui={"eraseanything_save": [told]})
