"""Concept Set (LLM): words from a language model."""

from __future__ import annotations

from typing import cast

from comfy_api.latest import io

from ..erase_core.concepts.sets import KINDS, ConceptSet, Kind
from ..erase_core.concepts.sources.llm import TOLD, concept_from_llm
from ..erase_core.endpoint import Endpoint
from . import inputs
from .concept_parts import concept_input, merged_input, named, output, outputs


class EraseConceptSetLLM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingConceptSetLLM",
            display_name="Concept Set (LLM)",
            category=inputs.CATEGORY,
            description="Asks a language model for synonyms and for words that must stay. Any "
            "OpenAI-compatible endpoint; its address, key and model come from the environment: "
            "ERASEANYTHING_LLM_URL, ERASEANYTHING_LLM_KEY, ERASEANYTHING_LLM_MODEL.",
            inputs=[
                concept_input(),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="entity",
                    tooltip="entity: things and people. abstraction: styles, colours, times. "
                    "relationship: actions and places.",
                ),
                io.String.Input(
                    "meaning",
                    default="",
                    tooltip="A few words that tell which meaning is meant, such as: the bird.",
                ),
                io.Int.Input(
                    "per_band",
                    default=6,
                    min=1,
                    max=50,
                    tooltip="Words asked for in each of the four bands.",
                ),
                inputs.seed(2**32 - 1, "Passed on to the endpoint; change it for other words."),
                merged_input(),
            ],
            outputs=outputs(),
            **inputs.aliases("llm", "openai", "concept", "synonyms"),
        )

    @classmethod
    def execute(
        cls,
        concept: str,
        kind: str,
        meaning: str,
        per_band: int,
        seed: int,
        concepts: ConceptSet | None = None,
    ) -> io.NodeOutput:
        endpoint = Endpoint.from_environment(TOLD)
        name = named(concept)
        made = concept_from_llm(endpoint, name, cast(Kind, kind), meaning.strip(), per_band, seed)
        return output([made], concepts, "LLM")
