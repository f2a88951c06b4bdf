"""The ComfyUI nodes; see :mod:`.live` for what they tell the front end."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .attention import AttentionMap
from .combine import Combine
from .concepts import EraseConceptSet, EraseConceptSetIO, EraseConceptSetLLM
from .instant import Instant
from .load import LoadFlux
from .preview import Preview
from .report import Report
from .save import Save
from .settings import Settings
from .train import Train


class EraseAnything(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadFlux,
            EraseConceptSet,
            EraseConceptSetLLM,
            EraseConceptSetIO,
            AttentionMap,
            Train,
            Instant,
            Settings,
            Preview,
            Report,
            Save,
            Combine,
        ]


async def comfy_entrypoint() -> EraseAnything:
    return EraseAnything()
