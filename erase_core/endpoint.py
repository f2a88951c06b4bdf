"""A language or vision model behind an OpenAI-compatible endpoint: asked, retried, never trusted.

No error text holds the key, or what stands behind the "?" of the address.
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
from typing import Any, NamedTuple

from .errors import EraseError

ATTEMPTS = 3
TIMEOUT = 60  # seconds a reply may take
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_REFUSED = (400, 422)
_OPTIONAL = ("temperature", "seed")  # which some models refuse
_QUOTED = 200  # letters of what an endpoint says is wrong
LARGEST = 1 << 20  # bytes of a reply
WINDOW = 8  # letters in a row that give a key away
_URL = "http://localhost:11434/v1"  # an example
SHORTEST = 6  # letters of a key; what is shorter is no secret ("none", "EMPTY")


class Told(NamedTuple):
    """Where a person tells the address, the key and the model: environment variables or options.

    ``what`` is asked, in sentences; ``instead`` is what to do without it; ``example`` is a model.
    """

    url: str
    key: str
    model: str
    what: str
    instead: str
    example: str


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
    told: Told

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or not _plain(self.url):
            raise EraseError(
                f"{self.told.url} is no web address; write one such as http://localhost:8080/v1."
            )
        if "@" in parts.netloc:
            raise EraseError(
                f"{self.told.url} holds a password; take it out and set {self.told.key} instead."
            )
        if not _plain(self.key):
            raise EraseError(
                f"{self.told.key} holds a line break, a space or a letter that no key has; set it "
                "again."
            )

    def __repr__(self) -> str:
        """Without the key, which must not reach a log."""
        return f"Endpoint(url={self.shown!r}, model={self.model!r})"

    @classmethod
    def from_environment(cls, told: Told) -> Endpoint:
        """What the environment variables in ``told`` say; EraseError, naming the variable, when the
        address or the model is not set."""
        values = [os.environ.get(name, "").strip() for name in (told.url, told.key, told.model)]
        examples = (told.url, values[0], _URL), (told.model, values[2], told.example)
        for name, value, example in examples:
            if not value:
                raise EraseError(
                    f"No {told.what} is set up; set {name} in the environment (e.g. {example}), "
                    f"or {told.instead}."
                )
        return cls(values[0], values[1], values[2], told)

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

    def ask(self, messages: Sequence[Mapping[str, Any]], seed: int) -> str:
        """The content of the reply; EraseError when the endpoint fails or cannot be reached."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        body |= {"temperature": 0, "seed": seed}
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
            f"The {self.told.what} at {self.shown} answered {code} {responses.get(code, '')}"
            f"{self._said(reply)}; check {self.told.url}, {self.told.key} and {self.told.model}."
        )

    def _send(self, body: Mapping[str, Any], last: bool) -> tuple[int, bytes]:
        """Status and body of the reply; status 0 for none, an EraseError instead at the ``last``
        attempt."""
        try:
            opener = urllib.request.build_opener(_AsItComes)
            with opener.open(self._request(body), timeout=TIMEOUT) as reply:
                target = reply.headers.get("Location") if 300 <= reply.status < 400 else None
                if not target:
                    return reply.status, _read(reply, self.told.what)
                problem = f"sends on to {self.hide(target)[:_QUOTED]}"
                remedy = f"set {self.told.url} to the address that answers"
        except (OSError, HTTPException, ValueError) as error:
            if not last:
                return 0, b""
            problem = f"cannot be reached ({self.hide(str(getattr(error, 'reason', error)))})"
            remedy = f"start it, check {self.told.url}, or {self.told.instead}"
        raise EraseError(f"The {self.told.what} at {self.shown} {problem}; {remedy}.")

    def _content(self, body: bytes) -> str:
        """The text of a chat completion."""
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise EraseError(
                f"The {self.told.what}'s answer is no chat completion{self._said(body)}; "
                f"{self.told.url} should end in /v1."
            ) from None
        if not isinstance(content, str):
            raise EraseError(f"The {self.told.what} answered without text; choose another model.")
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


def _read(reply: Any, what: str) -> bytes:
    """The body of a reply; EraseError when it is larger than LARGEST, TimeoutError when it takes
    longer than TIMEOUT."""
    until, parts, size = time.monotonic() + TIMEOUT, [], 0
    while part := reply.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise EraseError(f"The {what}'s reply has no end; choose another model.")
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
