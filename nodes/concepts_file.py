"""Concept Set: Save / Load, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..erase_core.concepts.sets import ConceptSet
from ..erase_core.errors import EraseError
from ..erase_core.files import sha256
from ..erase_core.writing import claim, landing
from . import inputs, places
from .concept_parts import SOCKET, output, outputs

OPEN = object()  # an input that nothing is connected to


class EraseConceptSetIO(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingConceptSetIO",
            display_name="Concept Set: Save / Load",
            category=inputs.CATEGORY,
            description="Saves the connected concept set as JSON; with nothing connected it loads "
            "the file.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=list(_FOLDERS),
                    default="user",
                    tooltip="Which of ComfyUI's folders; in it, eraseanything/concepts.",
                ),
                io.String.Input(
                    "name",
                    default="concepts",
                    tooltip="The file's name, perhaps with a subfolder; .json is added.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=True,
                    tooltip="Replace a file of that name. Off: that is an error.",
                ),
                SOCKET.Input(
                    "concepts",
                    optional=True,
                    tooltip="The set to save. Left open: the file is loaded.",
                ),
            ],
            outputs=outputs(),
            is_output_node=True,
            **inputs.aliases("concept", "json", "save concepts", "load concepts"),
        )

    @classmethod
    def fingerprint_inputs(
        cls, folder: str | None, name: str | None, concepts: Any = OPEN, **others: Any
    ) -> str:
        """Loads again when the file has changed; what is saved changes with its inputs alone."""
        # connected: the host passes None here
        if concepts is not OPEN or folder is None or name is None:
            return ""
        try:
            return sha256(_file(folder, name))
        except EraseError:
            return ""

    @classmethod
    def execute(
        cls, folder: str, name: str, overwrite: bool, concepts: ConceptSet | None = None
    ) -> io.NodeOutput:
        path = _file(folder, name)
        if concepts is None:
            return output(ConceptSet.load(path).concepts, None, "file", file=path.name)
        with claim(path, overwrite):
            if landing(path).exists() and not overwrite:
                raise EraseError(f"{path} exists; choose another name, or switch overwrite on.")
            concepts.save(path)
        return output(concepts.concepts, None, "file", file=path.name)


_FOLDERS = {
    "user": folder_paths.get_user_directory,
    "input": folder_paths.get_input_directory,
    "output": folder_paths.get_output_directory,
}


def _file(folder: str, name: str) -> Path:
    root = Path(_FOLDERS[folder]()) / "eraseanything" / "concepts"
    return places.inside(root, name.strip().removesuffix(".json") + ".json")
