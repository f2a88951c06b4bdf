"""Words in the host's text encoders, whatever family: which states of a prompt are a word's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..erase_core.concepts.sets import Concept, ConceptSet
from ..erase_core.erasers.guards.gate import FRAMES, WordGate, kept_words
from ..erase_core.errors import EraseError
from .guarding import prompt


def word_gates(clip: Any, concepts: ConceptSet) -> dict[str, WordGate]:
    """A gate for each concept's name, in the space of a CLIP of the host."""
    return {c.name: _gate(clip, c, concepts.names()) for c in concepts.concepts}


def _gate(clip: Any, concept: Concept, erased: tuple[str, ...]) -> WordGate:
    names = [word_states(clip, frame, name) for name in concept.names() for frame in FRAMES]
    kept = [f.format(word) for word in kept_words(concept, erased) for f in FRAMES]
    return WordGate(names, [states(prompt(clip, text))[0] for text in kept])


def states(cond: Any) -> Tensor:
    """The text states (B, T, D) of a CONDITIONING's first entry."""
    return cond[0][0].float().cpu()


def word_states(clip: Any, frame: str, word: str) -> Tensor:
    """States (n, D) of the tokens of ``word`` at the end of a prompt.

    Encoders put templates before a prompt and padding after it, and hand on the states of only some
    of that; token and state lists always end together.
    """
    found = states(prompt(clip, frame.format(word)))[0]
    with_word, without = (tokens(clip, frame.format(text).strip()) for text in (word, ""))
    fitting = [key for key in with_word if len(with_word[key]) == len(found)]
    key = (fitting or sorted(with_word, key=lambda key: len(with_word[key])))[-1]
    start, count = added(with_word[key], without[key])
    place = start + len(found) - len(with_word[key])
    if place < 0 or not count:
        raise EraseError(f'This CLIP does not say which of its states are "{word}".')
    return found[place : place + count]


def tokens(clip: Any, text: str) -> dict[str, list[int]]:
    """Token ids of a text for each encoder of a CLIP, padding and templates among them."""
    plain = clip.tokenize(text.replace("(", r"\(").replace(")", r"\)"))
    return {
        key: [entry[0] for chunk in chunks for entry in chunk]
        for key, chunks in plain.items()
        if isinstance(chunks, list)
    }


def added(longer: list[Any], shorter: list[Any]) -> tuple[int, int]:
    """Where the tokens stand that ``longer`` has more, and how many: both end alike, and one may be
    cut or padded to the other's length."""
    same = zip(longer, shorter, strict=False)
    start = next((i for i, (a, b) in enumerate(same) if a != b), min(len(longer), len(shorter)))
    for count in range(1, len(longer) - start + 1):
        rest = longer[start + count :]
        if rest == shorter[start : start + len(rest)]:
            return start, count
    return start, 0
