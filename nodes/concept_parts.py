"""What the nodes that make concept sets share: their socket, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..erase_core.concepts.find import describe
from ..erase_core.concepts.names import plain
from ..erase_core.concepts.sets import Concept, ConceptSet
from ..erase_core.errors import EraseError

SOCKET = io.Custom("ERASE_CONCEPTS")


def concept_input() -> Any:
    """The concept's name."""
    return io.String.Input(
        "concept",
        default="tiger",
        tooltip="What to erase: a thing, a person, a style, a colour, an action.",
    )


def merged_input() -> Any:
    """Another set."""
    return SOCKET.Input(
        "concepts", optional=True, tooltip="Another set, to erase its concepts together with this."
    )


def outputs() -> list[Any]:
    """The set, twice."""
    return [
        SOCKET.Output(display_name="concepts", tooltip="The set, for Erase Concept."),
        io.String.Output(display_name="text", tooltip="The set for reading."),
    ]


def output(
    own: Sequence[Concept],
    others: ConceptSet | None,
    source: str,
    senses: Sequence[dict[str, Any]] = (),
    file: str = "",
) -> io.NodeOutput:
    """The set, merged with ``others``, as socket, text and UI output."""
    made = ConceptSet(tuple(own))
    merged = made if others is None else others.merge(made)
    told = panel(merged, own, source, senses, file)
    return io.NodeOutput(merged, _text(merged), ui={"eraseanything_concepts": [told]})


def panel(
    concepts: ConceptSet,
    own: Sequence[Concept],
    source: str,
    senses: Sequence[dict[str, Any]] = (),
    file: str = "",
) -> dict[str, Any]:
    """What a node's panel shows of a set, and which of its concepts are the node's own."""
    return {
        "set": concepts.to_json(),
        "own": [concept.name for concept in own],
        "source": source,
        "senses": list(senses),
        "file": file,
    }


def _text(concepts: ConceptSet) -> str:
    """A set for reading."""
    return "\n".join(line for concept in concepts.concepts for line in describe(concept))


def named(text: str) -> str:
    """A concept's name without emoji and spare blanks; EraseError for none."""
    name = plain(text)
    if not name:
        raise EraseError("There is no concept; write what is to be erased.")
    return name
