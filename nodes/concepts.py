"""Concept sets: by hand, from MiniFlux, the shipped lists, WordNet or a language model; files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import folder_paths
from comfy_api.latest import io

from ..erase_core.concepts.find import describe, find_concept, with_words
from ..erase_core.concepts.sets import KINDS, Concept, ConceptSet, Kind
from ..erase_core.concepts.sources.llm import Endpoint, concept_from_llm
from ..erase_core.concepts.sources.wordnet import concept_from_wordnet
from ..erase_core.concepts.sources.wordnet import senses as wordnet_senses
from ..erase_core.errors import EraseError
from ..erase_core.files import sha256
from ..erase_core.miniatures.miniflux.concepts import concept as miniflux_concept
from ..erase_core.writing import claim, landing
from . import inputs, places

AUTO = "auto"
SOURCES = [AUTO, "MiniFlux", "WordNet", "by hand"]
SOCKET = io.Custom("ERASE_CONCEPTS")
OPEN = object()  # an input that nothing is connected to
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
            outputs=_outputs(),
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
        name = _name(concept)
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
        return _output([edited], concepts, origin, senses=_senses(edited, origin))


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
                _concept(),
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
                _merged(),
            ],
            outputs=_outputs(),
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
        endpoint = Endpoint.from_environment()
        name = _name(concept)
        made = concept_from_llm(endpoint, name, cast(Kind, kind), meaning.strip(), per_band, seed)
        return _output([made], concepts, "LLM")


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
            outputs=_outputs(),
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
            return _output(ConceptSet.load(path).concepts, None, "file", file=path.name)
        with claim(path, overwrite):
            if landing(path).exists() and not overwrite:
                raise EraseError(f"{path} exists; choose another name, or switch overwrite on.")
            concepts.save(path)
        return _output(concepts.concepts, None, "file", file=path.name)


_FOLDERS = {
    "user": folder_paths.get_user_directory,
    "input": folder_paths.get_input_directory,
    "output": folder_paths.get_output_directory,
}


def _file(folder: str, name: str) -> Path:
    root = Path(_FOLDERS[folder]()) / "eraseanything" / "concepts"
    return places.inside(root, name.strip().removesuffix(".json") + ".json")


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


def _output(
    own: Sequence[Concept],
    others: ConceptSet | None,
    source: str,
    senses: Sequence[dict[str, Any]] = (),
    file: str = "",
) -> io.NodeOutput:
    """The set, merged with ``others``, as socket, text and UI output."""
    made = ConceptSet(tuple(own))
    merged = made if others is None else others.merge(made)
    told = {
        "set": merged.to_json(),
        "own": [concept.name for concept in own],
        "source": source,
        "senses": list(senses),
        "file": file,
    }
    return io.NodeOutput(merged, _text(merged), ui={"eraseanything_concepts": [told]})


def _text(concepts: ConceptSet) -> str:
    """A set for reading."""
    return "\n".join(line for concept in concepts.concepts for line in describe(concept))


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not name:
        raise EraseError("There is no concept; write what is to be erased.")
    return name


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
        _concept(),
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
        _merged(),
    ]


def _concept() -> Any:
    return io.String.Input(
        "concept",
        default="tiger",
        tooltip="What to erase: a thing, a person, a style, a colour, an action.",
    )


def _words(name: str, tooltip: str) -> Any:
    return io.String.Input(name, default="", multiline=True, optional=True, tooltip=tooltip)


def _merged() -> Any:
    return SOCKET.Input(
        "concepts", optional=True, tooltip="Another set, to erase its concepts together with this."
    )


def _outputs() -> list[Any]:
    return [
        SOCKET.Output(display_name="concepts", tooltip="The set, for Erase Concept."),
        io.String.Output(display_name="text", tooltip="The set for reading."),
    ]
