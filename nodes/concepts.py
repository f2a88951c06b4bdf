"""Concept Set: what to erase and what to keep, by hand, from MiniFlux, the lists or WordNet."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, cast

from comfy_api.latest import io

from ..erase_core.concepts.find import find_concept, with_words
from ..erase_core.concepts.sets import KINDS, Concept, ConceptSet, Kind
from ..erase_core.concepts.sources.wordnet import concept_from_wordnet
from ..erase_core.concepts.sources.wordnet import senses as wordnet_senses
from ..erase_core.errors import EraseError
from ..erase_core.miniatures.miniflux.concepts import concept as miniflux_concept
from . import inputs
from .concept_parts import concept_input, merged_input, named, output, outputs

AUTO = "auto"
SOURCES = [AUTO, "MiniFlux", "WordNet", "by hand"]
NO_WORDS = "-"  # a list that is to stay empty; the same in web/concepts.js
BAND_TEXTS = {
    "none": "words that have nothing to do with the concept",
    "far": "distant words",
    "mid": "related words",
    "near": "close relatives, which erasing hurts first",
}


class EraseConceptSet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EraseAnythingConceptSet",
            display_name="Concept Set",
            category=inputs.CATEGORY,
            description="What to erase, under which names, and which words must stay. What is left "
            "empty is filled in, and shown on the node with the meanings to choose from.",
            inputs=_inputs(),
            outputs=outputs(),
            is_output_node=True,
            **inputs.aliases("concept", "wordnet", "synonyms", "unlearn"),
        )

    @classmethod
    def execute(
        cls,
        concept: str,
        kind: str,
        source: str,
        sense: str,
        synonyms: str = "",
        irrelevant_none: str = "",
        irrelevant_far: str = "",
        irrelevant_mid: str = "",
        irrelevant_near: str = "",
        sentences: str = "",
        per_band: int = 6,
        seed: int = 0,
        concepts: ConceptSet | None = None,
    ) -> io.NodeOutput:
        name = named(concept)
        wanted = cast(Kind | None, None if kind == AUTO else kind)
        by_hand = {
            "none": _own(irrelevant_none),
            "far": _own(irrelevant_far),
            "mid": _own(irrelevant_mid),
            "near": _own(irrelevant_near),
        }
        try:
            found, origin = find(name, wanted, source, sense.strip(), per_band, seed)
        except EraseError:
            if source != AUTO or sense.strip() or not any(by_hand.values()):
                raise
            found, origin = find(name, wanted, "by hand", "", per_band, seed)
        edited = with_words(found, _own(synonyms), by_hand, _lines(sentences))
        return output([edited], concepts, origin, senses=_senses(edited, origin))


def find(
    name: str, kind: Kind | None, source: str, sense: str, per_band: int, seed: int
) -> tuple[Concept, str]:
    """A concept, and where its words come from."""
    if source == "by hand":
        return Concept(name, kind or "entity", sense=sense), source
    if source == "MiniFlux":
        return miniflux_concept(name), source
    if source == "WordNet":
        made = concept_from_wordnet(name, kind or "entity", sense or None, per_band, seed)
        return made, source
    return find_concept(name, kind, sense, per_band, seed)


def _senses(concept: Concept, origin: str) -> list[dict[str, Any]]:
    """WordNet's meanings of the name, for the node to show; none where WordNet plays no part."""
    if origin in ("WordNet", "lists"):
        return [asdict(sense) for sense in wordnet_senses(concept.name, concept.kind)]
    return []


def _own(text: str) -> tuple[str, ...] | None:
    """The user's words, each once: commas or new lines stand between them. None of an empty text,
    which wants those found."""
    words = (" ".join(part.split()) for part in re.split(r"[,\n]", text))
    own = tuple({word.casefold(): word for word in words if word}.values())
    return () if own == (NO_WORDS,) else own or None


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _inputs() -> list[Any]:
    return [
        concept_input(),
        io.Combo.Input(
            "kind",
            options=[AUTO, *KINDS],
            default=AUTO,
            tooltip="entity: things and people. abstraction: styles, colours, times. "
            "relationship: actions and places. auto: as the lists say, else entity.",
        ),
        io.Combo.Input(
            "source",
            options=SOURCES,
            default=AUTO,
            tooltip="Where missing words come from. auto: the shipped lists, else WordNet. "
            "MiniFlux: its own world, for the bundled model. by hand: nothing is added.",
        ),
        io.String.Input(
            "sense",
            default="",
            tooltip="WordNet's name of the meaning, such as tiger.n.02; empty: the "
            "likeliest. Run once to see them on the node.",
        ),
        _words(
            "synonyms",
            "Other names, erased with it. One a line, or with commas; empty: found; -: none.",
        ),
        *(
            _words(
                f"irrelevant_{band}",
                f"Kept: {text}. One a line, or with commas; empty: found; -: none.",
            )
            for band, text in BAND_TEXTS.items()
        ),
        io.String.Input(
            "sentences",
            default="",
            multiline=True,
            optional=True,
            tooltip="Prompts with the concept's name in them, one a line, to train on; "
            "empty: the shipped ones.",
        ),
        io.Int.Input(
            "per_band",
            default=6,
            min=1,
            max=50,
            optional=True,
            tooltip="Words found for each of the four bands.",
        ),
        inputs.seed(2**32 - 1, "Seed of the choice of words.", optional=True),
        merged_input(),
    ]


def _words(name: str, tooltip: str) -> Any:
    return io.String.Input(name, default="", multiline=True, optional=True, tooltip=tooltip)
