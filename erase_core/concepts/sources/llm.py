"""Synonyms and irrelevant words from a language model behind an OpenAI-compatible endpoint.

Address, key and model come from the environment alone, so that no file and no workflow carries
them. The reply must be the JSON that was asked for; what else comes is refused, never run.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import EraseError
from ..sets import BANDS, Bands, Concept, Kind
from ..spans import word_spans

URL, KEY, MODEL = "ERASEANYTHING_LLM_URL", "ERASEANYTHING_LLM_KEY", "ERASEANYTHING_LLM_MODEL"
ATTEMPTS = 3
TIMEOUT = 60  # seconds a reply may take
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_REFUSED = (400, 422)
_OPTIONAL = ("temperature", "seed")  # which some models refuse
_QUOTED = 200  # letters of what an endpoint says is wrong
LARGEST = 1 << 20  # bytes of a reply

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


@dataclass(frozen=True)
class Endpoint:
    """Where to ask: the base ``url`` (".../v1"), the ``key`` (may be empty) and the ``model``."""

    url: str
    key: str
    model: str

    def __repr__(self) -> str:
        """Without the key, which must not reach a log."""
        return f"Endpoint(url={self.url!r}, model={self.model!r})"

    @classmethod
    def from_environment(cls) -> Endpoint:
        """EraseError, naming the variable, when the address or the model is not set."""
        values = {name: os.environ.get(name, "").strip() for name in (URL, KEY, MODEL)}
        for name, example in ((URL, "http://localhost:11434/v1"), (MODEL, "llama3.2")):
            if not values[name]:
                raise EraseError(
                    f"No language model is set up; set {name} in the environment (e.g. {example}), "
                    "or take the words from WordNet."
                )
        if urllib.parse.urlsplit(values[URL]).scheme not in ("http", "https"):
            raise EraseError(
                f"{URL} is no web address; write one such as http://localhost:8080/v1."
            )
        return cls(values[URL].rstrip("/"), values[KEY], values[MODEL])

    def ask(self, messages: list[dict[str, str]], seed: int) -> str:
        """The content of the reply; EraseError when the endpoint fails or cannot be reached."""
        body = {"model": self.model, "messages": messages, "temperature": 0, "seed": seed}
        for attempt in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(self._request(body), timeout=TIMEOUT) as reply:
                    return _content(reply.read(LARGEST))
            except urllib.error.HTTPError as error:
                if error.code in _REFUSED and "seed" in body:
                    body = {name: body[name] for name in body if name not in _OPTIONAL}
                    continue
                if error.code not in _BUSY or attempt == ATTEMPTS - 1:
                    raise EraseError(
                        f"The language model at {self.url} answered {error.code} {error.reason}"
                        f"{self._said(error)}; check {URL}, {KEY} and {MODEL}."
                    ) from error
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    reason = getattr(error, "reason", error)
                    raise EraseError(
                        f"The language model at {self.url} cannot be reached ({reason}); start it, "
                        f"check {URL}, or take the words from WordNet."
                    ) from error
            time.sleep(PAUSE * 2**attempt)
        raise AssertionError("unreachable")

    def _request(self, body: Mapping[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url}/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What the endpoint says is wrong, in brackets and without the key; "" if nothing."""
        try:
            text = error.read(LARGEST).decode(errors="replace")
        except OSError:
            return ""
        with suppress(ValueError, LookupError, TypeError):
            text = str(json.loads(text)["error"]["message"])
        plain = " ".join(text.split())
        if self.key:
            plain = plain.replace(self.key, "...")
        return f" ({plain[:_QUOTED]})" if plain else ""


def concept_from_llm(
    endpoint: Endpoint, name: str, kind: Kind, meaning: str = "", count: int = 6, seed: int = 0
) -> Concept:
    """A concept with the synonyms and the four bands that a language model names.

    A reply that is not what was asked for is sent back with what is wrong, ATTEMPTS times at most;
    EraseError after that.
    """
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
    """A concept from a reply: one JSON object, in a code fence or not, with the five lists.

    Words that name the concept itself leave quietly. EraseError for anything else that is wrong.
    """
    value = _object(reply)
    unknown = sorted(value.keys() - {"synonyms", *BANDS})
    missing = [key for key in ("synonyms", *BANDS) if key not in value]
    if unknown or missing:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which nobody asked for"
        raise EraseError(f"The object {what}.")
    lists = {key: _word_list(words, key) for key, words in value.items()}
    synonyms = _others(lists.pop("synonyms"), {name.casefold()}, name)[:count]
    taken = {word.casefold() for word in (name, *synonyms)}
    bands = {band: _others(lists[band], taken, name)[:count] for band in BANDS}
    empty = [band for band in BANDS if not bands[band]]
    if empty:
        raise EraseError(f"The list {empty[0]} has no word but those of the concept.")
    return Concept(name, kind, meaning, synonyms, Bands(**bands))


def _object(reply: str) -> Mapping[str, Any]:
    text = reply.strip()
    if text.startswith("```"):
        text = text.split("\n", 1)[-1].rsplit("```", 1)[0]
    try:
        value = json.loads(text)
    except ValueError as error:
        raise EraseError(f"The reply is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise EraseError("The reply is no JSON object.")
    return value


def _word_list(words: object, key: str) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise EraseError(f"{key} is no list of words.")
    plain = [" ".join(word.split()) for word in words]
    if any(not word or len(word) > 60 for word in plain):
        raise EraseError(f"{key} holds an empty word or one of more than 60 letters.")
    return plain


def _others(words: list[str], taken: set[str], name: str) -> tuple[str, ...]:
    """The words that are neither taken nor an inflection of ``name``; ``taken`` grows by them."""
    kept = []
    for word in words:
        if word.casefold() not in taken and (0, len(word)) not in word_spans(word, name):
            taken.add(word.casefold())
            kept.append(word)
    return tuple(kept)


def _content(body: bytes) -> str:
    """The text of a chat completion."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise EraseError(
            f"The language model's answer is no chat completion; {URL} should end in /v1."
        ) from error
    if not isinstance(content, str):
        raise EraseError("The language model answered without text; choose another model.")
    return content
