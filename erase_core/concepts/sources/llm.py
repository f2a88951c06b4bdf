"""Synonyms and irrelevant words from a language model behind an OpenAI-compatible endpoint.

Address, key and model come from the environment alone, so that no file and no workflow carries
them. The reply must be the JSON that was asked for; what else comes is refused, never run.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, responses
from itertools import islice
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
_WORD = 60  # letters of a word
_TRIES = 100  # places in a reply where its JSON object may begin
_DECODER = json.JSONDecoder()
LARGEST = 1 << 20  # bytes of a reply
WINDOW = 8  # letters in a row that give a key away
SHORTEST = 6  # letters of a key; what is shorter is no secret ("none", "EMPTY")

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


class _AsItComes(urllib.request.HTTPErrorProcessor):
    """Hands on every reply and follows no redirect: urllib would take the key along."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


@dataclass(frozen=True)
class Endpoint:
    """Where to ask: the base ``url`` (".../v1"), the ``key`` (may be empty) and the ``model``.

    EraseError for an address or a key that cannot be right. No error text holds the key, or what
    stands behind the "?" of the address.
    """

    url: str
    key: str
    model: str

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or not _plain(self.url):
            raise EraseError(
                f"{URL} is no web address; write one such as http://localhost:8080/v1."
            )
        if "@" in parts.netloc:
            raise EraseError(f"{URL} holds a password; take it out and set {KEY} instead.")
        if not _plain(self.key):
            raise EraseError(
                f"{KEY} holds a line break, a space or a letter that no key has; set it again."
            )

    def __repr__(self) -> str:
        """Without the key, which must not reach a log."""
        return f"Endpoint(url={self.shown!r}, model={self.model!r})"

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
        return cls(values[URL], values[KEY], values[MODEL])

    @property
    def shown(self) -> str:
        """The address for people: without its query, which may hold a key."""
        return self.hide(urllib.parse.urlsplit(self.url)._replace(query="", fragment="").geturl())

    def hide(self, text: str) -> str:
        """``text`` in one line, with "..." for what it has of the key or of the address's query.

        WINDOW letters in a row give it away, or all where there are fewer.
        """
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        for secret in self._secrets():
            size = min(WINDOW, len(secret))
            pieces = {secret[i : i + size] for i in range(len(secret) - size + 1)}
            places = [i for i in range(len(line) - size + 1) if line[i : i + size] in pieces]
            hidden = {place + i for place in places for i in range(size)}
            marked = "".join("\0" if i in hidden else letter for i, letter in enumerate(line))
            line = re.sub("\0+", "...", marked)
        return line

    def _secrets(self) -> set[str]:
        query = urllib.parse.urlsplit(self.url).query
        forms = {self.key, urllib.parse.quote(self.key), query, urllib.parse.unquote(query)}
        return {form for form in forms if len(form) >= SHORTEST}

    def ask(self, messages: list[dict[str, str]], seed: int) -> str:
        """The content of the reply; EraseError when the endpoint fails or cannot be reached."""
        body = {"model": self.model, "messages": messages, "temperature": 0, "seed": seed}
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            code, reply = self._send(body, last)
            if 200 <= code < 300:
                return self._content(reply)
            if code in _REFUSED and "seed" in body and not last:
                body = {name: body[name] for name in body if name not in _OPTIONAL}
                continue
            if last or (code and code not in _BUSY):
                break
            time.sleep(PAUSE * 2**attempt)
        raise EraseError(
            f"The language model at {self.shown} answered {code} {responses.get(code, '')}"
            f"{self._said(reply)}; check {URL}, {KEY} and {MODEL}."
        )

    def _send(self, body: Mapping[str, Any], last: bool) -> tuple[int, bytes]:
        """Status and body of the reply; status 0 for none, an EraseError instead at the ``last``
        attempt."""
        try:
            opener = urllib.request.build_opener(_AsItComes)
            with opener.open(self._request(body), timeout=TIMEOUT) as reply:
                target = reply.headers.get("Location") if 300 <= reply.status < 400 else None
                if not target:
                    return reply.status, _read(reply)
                problem = f"sends on to {self.hide(target)[:_QUOTED]}"
                remedy = f"set {URL} to the address that answers"
        except (OSError, HTTPException, ValueError) as error:
            if not last:
                return 0, b""
            problem = f"cannot be reached ({self.hide(str(getattr(error, 'reason', error)))})"
            remedy = f"start it, check {URL}, or take the words from WordNet"
        raise EraseError(f"The language model at {self.shown} {problem}; {remedy}.")

    def _content(self, body: bytes) -> str:
        """The text of a chat completion."""
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise EraseError(
                f"The language model's answer is no chat completion{self._said(body)}; {URL} "
                "should end in /v1."
            ) from None
        if not isinstance(content, str):
            raise EraseError("The language model answered without text; choose another model.")
        return content

    def _said(self, body: bytes) -> str:
        """What an endpoint says is wrong, in brackets; "" if nothing."""
        said = self.hide(_message(body))[:_QUOTED]
        return f" ({said})" if said else ""

    def _request(self, body: Mapping[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        parts = urllib.parse.urlsplit(self.url)
        path = parts.path.rstrip("/") + "/chat/completions"
        address = parts._replace(path=path, fragment="").geturl()
        return urllib.request.Request(address, json.dumps(body).encode(), headers)


def _plain(text: str) -> bool:
    """Whether a header or an address can hold the text as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _read(reply: Any) -> bytes:
    """The body of a reply; EraseError when it is larger than LARGEST, TimeoutError when it takes
    longer than TIMEOUT."""
    until, parts, size = time.monotonic() + TIMEOUT, [], 0
    while part := reply.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise EraseError("The language model's reply has no end; choose another model.")
        if time.monotonic() > until:
            raise TimeoutError(f"the reply takes longer than {TIMEOUT} s")
    return b"".join(parts)


def _message(body: bytes) -> str:
    """The message of an endpoint's error object, else its plain text; "" of what is neither."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (LookupError, TypeError, RecursionError):
        return ""
    except ValueError:
        plain = "\ufffd" not in text and not text.lstrip().startswith("<")  # no bytes, no page
        return text if plain else ""
    return text if isinstance(text, str) else ""


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
