"""Synonyms and irrelevant words from a language model behind an OpenAI-compatible endpoint.

Address, key and model come from the environment alone, so that no file and no workflow carries
them. The reply must be the JSON that was asked for; what else comes is refused, never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ...endpoint import ATTEMPTS, Endpoint, Told
from ...errors import EraseError
from ..sets import BANDS, Bands, Concept, Kind
from ..spans import word_spans

URL, KEY, MODEL = "ERASEANYTHING_LLM_URL", "ERASEANYTHING_LLM_KEY", "ERASEANYTHING_LLM_MODEL"
TOLD = Told(URL, KEY, MODEL, "language model", "take the words from WordNet", "llama3.2")
_WORD = 60  # letters of a word
_TRIES = 100  # places in a reply where its JSON object may begin
_DECODER = json.JSONDecoder()

_SYSTEM = (
    "You choose words for an experiment in which a text-to-image model forgets a concept. "
    "Answer with one JSON object and nothing else."
)
_TASK = """\
Concept: "{name}" ({kind}){meaning}.
Give the JSON object {{"synonyms": [], "none": [], "far": [], "mid": [], "near": []}} with lists of
words:
- synonyms: up to {count} other words or short phrases for exactly this concept, which an image
  prompt could use in its place; no plural or inflection of it; [] if there are none.
- none, far, mid, near: {count} words each, of the same kind and grammatical form, that name
  something else that can be seen. Similarity to the concept: none about 0.1 (no relation), far
  about 0.3, mid about 0.5, near about 0.8 (siblings, such as "lion" for "tiger"). Never a word
  above or below the concept in a hierarchy, never a synonym, no word twice.
All words in English, lower case unless they are names."""


def concept_from_llm(
    endpoint: Endpoint, name: str, kind: Kind, meaning: str = "", count: int = 6, seed: int = 0
) -> Concept:
    """A concept with the synonyms and the four bands that a language model names.

    A reply that is not what was asked for is sent back with what is wrong, ATTEMPTS times at most;
    EraseError after that. Nothing that leaves here holds the endpoint's key.
    """
    try:
        made = _converse(endpoint, name, kind, meaning, count, seed)
    except EraseError as error:
        problem = endpoint.hide(str(error))
    else:
        words = (*made.synonyms, *made.irrelevant_words())
        if all(endpoint.hide(word) == word for word in words):
            return made
        problem = "The language model gave its key as a word; choose another model."
    raise EraseError(problem)  # not inside "except", so that no traceback shows what was hidden


def _converse(
    endpoint: Endpoint, name: str, kind: Kind, meaning: str, count: int, seed: int
) -> Concept:
    task = _TASK.format(
        name=name,
        kind=kind,
        meaning=f", in the sense of: {meaning}" if meaning else "",
        count=count,
    )
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": task}]
    problem = ""
    for attempt in range(ATTEMPTS):
        reply = endpoint.ask(messages, seed + attempt)
        try:
            return parse(reply, name, kind, meaning, count)
        except EraseError as error:
            problem = str(error)
            messages = messages[:2] + [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": f"{problem} Give the whole JSON object again."},
            ]
    raise EraseError(f"The language model gave no usable words in {ATTEMPTS} attempts: {problem}")


def parse(reply: str, name: str, kind: Kind, meaning: str = "", count: int = 6) -> Concept:
    """A concept from a reply: the last JSON object in it, whatever stands around it.

    Words that name the concept itself leave quietly. EraseError for anything else that is wrong.
    """
    value = _object(reply)
    unknown = sorted(value.keys() - {"synonyms", *BANDS})
    missing = [key for key in ("synonyms", *BANDS) if key not in value]
    if unknown or missing:
        asked = f"has {unknown[0][:_WORD]}, which nobody asked for" if unknown else ""
        raise EraseError(f"The object {f'lacks {missing[0]}' if missing else asked}.")
    lists = {key: _word_list(words, key) for key, words in value.items()}
    synonyms = _others(lists.pop("synonyms"), {name.casefold()}, (name,))[:count]
    bare = Concept(name, kind, meaning, synonyms)
    taken = {name.casefold() for name in bare.names()}
    bands = {band: _others(lists[band], taken, bare.names())[:count] for band in BANDS}
    empty = [band for band in BANDS if not bands[band]]
    if empty:
        raise EraseError(f"The list {empty[0]} has no word but those of the concept.")
    return bare.keeping(Bands(**bands))


def _object(reply: str) -> Mapping[str, Any]:
    """The last JSON object of a reply; what a model thinks aloud before it does not count."""
    text = reply.rsplit("</think>", 1)[-1].split("<think>", 1)[0]
    found, end, problem = None, 0, "it has no { with a name behind it"
    for start in islice(re.finditer(r"\{\s*[\"}]", text), _TRIES):
        if start.start() < end:  # inside the object before
            continue
        try:
            found, end = _DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            problem = error.msg
        except (ValueError, RecursionError):  # a number of 10,000 digits, brackets in brackets
            problem = "nobody could read it"
    if not isinstance(found, dict):
        raise EraseError(f"The reply is no JSON object ({problem}).")
    return found


def _word_list(words: object, key: str) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise EraseError(f"{key} is no list of words.")
    plain = [" ".join(word.split()) for word in words]
    if any(not word or len(word) > _WORD for word in plain):
        raise EraseError(f"{key} holds an empty word or one of more than {_WORD} letters.")
    if not all(word.isprintable() and any(map(str.isalnum, word)) for word in plain):
        raise EraseError(f"{key} holds something that is no word.")
    return plain


def _others(words: list[str], taken: set[str], names: Sequence[str]) -> tuple[str, ...]:
    """The words that are neither taken nor a form of one of ``names``; ``taken`` grows by them."""
    kept = []
    for word in words:
        form = any((0, len(word)) in word_spans(word, name) for name in names)
        if word.casefold() not in taken and not form:
            taken.add(word.casefold())
            kept.append(word)
    return tuple(kept)
