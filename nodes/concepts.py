"""Concept Set: what to erase and what to keep, by hand, from MiniFlux, the lists or WordNet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, cast

from aiohttp import web
from comfy_api.latest import io
from server import PromptServer

from ..erase_core.concepts.find import find_concept, with_words
from ..erase_core.concepts.sets import BANDS, KINDS, Concept, ConceptSet, Kind
from ..erase_core.concepts.sources.wordnet import concept_from_wordnet
from ..erase_core.concepts.sources.wordnet import senses as wordnet_senses
from ..erase_core.errors import EraseError
from ..erase_core.miniatures.miniflux.concepts import concept as miniflux_concept
from . import inputs
from .concept_parts import concept_input, merged_input, named, output, outputs, panel
from .language import said
from .places import shortened

ROUTE = "/eraseanything/words"
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
            inputs=inputs.advanced(_inputs(), "sense", "sentences", "per_band", "seed"),
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
        lists = (irrelevant_none, irrelevant_far, irrelevant_mid, irrelevant_near)
        words = _Words(synonyms, dict(zip(BANDS, lists, strict=True)), sentences)
        made, origin = _make(concept, kind, source, sense.strip(), words, per_band, seed)
        return output([made], concepts, origin, senses=_senses(made, origin))


class _Words(NamedTuple):
    """The texts that hold a person's own words."""

    synonyms: str
    irrelevant: Mapping[str, str]
    sentences: str


def _make(
    concept: str, kind: str, source: str, sense: str, words: _Words, per_band: int, seed: int
) -> tuple[Concept, str]:
    """The concept that the node's inputs describe, and where its words come from."""
    name = named(concept)
    wanted = cast(Kind | None, None if kind == AUTO else kind)
    by_hand = {band: _own(text) for band, text in words.irrelevant.items()}
    try:
        found, origin = find(name, wanted, source, sense, per_band, seed)
    except EraseError:
        if source != AUTO or sense or not any(by_hand.values()):
            raise
        found, origin = find(name, wanted, "by hand", "", per_band, seed)
    return with_words(found, _own(words.synonyms), by_hand, _lines(words.sentences)), origin


@PromptServer.instance.routes.post(ROUTE)
async def _found(request: web.Request) -> web.Response:
    """The words for a node's inputs, at once: a run would wait behind others in the queue."""
    try:
        told = await asyncio.to_thread(_tell, await request.json())
    except EraseError as error:
        told = {"error": said(shortened(str(error)))}
    except (KeyError, TypeError, ValueError):
        wrong = {"error": "These are not the inputs of a Concept Set."}
        return web.json_response(wrong, status=400)
    return web.json_response(told)


def _tell(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the panel shows for the values of the node's inputs, by their names."""
    bands = {band: str(asked[f"irrelevant_{band}"]) for band in BANDS}
    words = _Words(str(asked["synonyms"]), bands, str(asked["sentences"]))
    names = ("concept", "kind", "source", "sense")
    concept, kind, source, sense = (str(asked[name]).strip() for name in names)
    count, seed = min(50, max(1, int(asked["per_band"]))), int(asked["seed"])
    made, origin = _make(concept, kind, source, sense, words, count, seed)
    return panel(ConceptSet((made,)), [made], origin, _senses(made, origin))


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
