"""The ComfyUI nodes; see :mod:`.live` for what they tell the front end."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .attention import AttentionMap
from .combine import Combine
from .concepts import EraseConceptSet
from .concepts_file import EraseConceptSetIO
from .concepts_llm import EraseConceptSetLLM
from .each import EraseEach
from .guard import Guard
from .guard_prompt import GuardPrompt
from .instant import Instant
from .load import LoadFlux
from .preview import ErasurePreview
from .refusals import plainly
from .report import Report
from .save import Save
from .settings import Settings
from .train import Train

NODES = (
    LoadFlux,
    EraseConceptSet,
    EraseConceptSetLLM,
    EraseConceptSetIO,
    AttentionMap,
    Train,
    EraseEach,
    Instant,
    Settings,
    ErasurePreview,
    Report,
    Save,
    Combine,
    Guard,
    GuardPrompt,
)


class EraseAnything(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [plainly(node) for node in NODES]


async def comfy_entrypoint() -> EraseAnything:
    return EraseAnything()
