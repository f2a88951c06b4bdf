"""The key of the language model stays where it belongs, whatever its endpoint answers."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from erase_core import endpoint
from erase_core.concepts.sets import Concept
from erase_core.concepts.sources import llm
from erase_core.concepts.sources.llm import concept_from_llm
from erase_core.endpoint import Endpoint
from erase_core.errors import EraseError

KEY = "sk-hostile-0123456789abcdef"
GOOD = {
    "synonyms": ["panthera tigris"],
    "none": ["violin"],
    "far": ["rose"],
    "mid": ["horse"],
    "near": ["lion"],
}


class Server(ThreadingHTTPServer):
    """Answers every question with ``status``, ``headers`` and ``body``; keeps what it was asked."""

    status: int = 200
    reason: str | None = None
    headers: dict[str, str] = {}
    body: bytes | Callable[[], Iterator[bytes]] = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.over = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def says(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers

    def tells(self, content: object) -> None:
        self.says(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

    def handle_error(self, *args: Any) -> None:
        return  # the client hung up


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server
        server.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(server.status, server.reason)
        for name, value in server.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for part in server.body() if callable(server.body) else [server.body]:
            self.wfile.write(part)

    do_GET = do_POST

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running() as one:
        monkeypatch.setenv(llm.URL, one.url)
        monkeypatch.setenv(llm.KEY, KEY)
        monkeypatch.setenv(llm.MODEL, "some-model")
        monkeypatch.setattr(endpoint, "PAUSE", 0.0)
        yield one


def running() -> Any:
    """A started server, stopped when its ``with`` block ends."""

    class Running(Server):
        def __enter__(self) -> Server:
            Thread(target=self.serve_forever, daemon=True).start()
            return self

        def __exit__(self, *args: Any) -> None:
            self.over.set()
            self.shutdown()
            self.server_close()

    return Running()


def ask() -> Concept:
    return concept_from_llm(Endpoint.from_environment(llm.TOLD), "tiger", "entity", "", 2, seed=7)


def failure() -> str:
    """The sentence that asking ends in; it and its traceback are clean."""
    with pytest.raises(EraseError) as caught:
        ask()
    said = str(caught.value)
    whole = "".join(traceback.format_exception(caught.value))
    pieces = (KEY[i : i + 8] for i in range(len(KEY) - 7))
    assert not [piece for piece in pieces if piece in whole]
    assert said.endswith(".") and len(said) < 600 and said.isprintable()
    return said


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(server: Server, status: int) -> None:
    with running() as other:
        other.tells(json.dumps(GOOD))
        server.says(b"", status, Location=f"{other.url}/chat/completions?api_key={KEY}")
        assert "sends on to" in failure()
        assert not other.asked and len(server.asked) == 1


def test_a_redirect_in_a_circle_ends(server: Server) -> None:
    server.says(b"", 302, Location="/v1/chat/completions")
    assert "sends on to" in failure()


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY}\r\nX-Other: 1", f"{KEY}é", f"a {KEY}"])
def test_a_key_that_no_header_can_hold(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(llm.KEY, key)
    assert "set it again" in failure()
    assert not server.asked


def test_a_password_in_the_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llm.URL, f"http://user:{KEY}@127.0.0.1:{server.server_port}/v1")
    assert "holds a password" in failure()


def test_a_key_in_the_address_is_sent_and_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(llm.KEY)
    monkeypatch.setenv(llm.URL, f"{server.url}?api_key={KEY}")
    server.tells(json.dumps(GOOD))
    assert ask().name == "tiger"
    assert server.asked == [(f"/v1/chat/completions?api_key={KEY}", None)]
    server.says(b"I know " + KEY.encode(), 401)
    assert "answered 401" in failure()
    assert KEY not in repr(Endpoint.from_environment(llm.TOLD))


def test_a_key_in_the_status_line(server: Server) -> None:
    server.status, server.reason = 401, f"No {KEY} here"
    assert "answered 401" in failure()


@pytest.mark.parametrize(
    "body",
    [
        f"No {KEY} here",
        json.dumps({"error": {"message": f"The key {KEY[:-4]}**** is wrong"}}),
        json.dumps({"error": KEY}),
        json.dumps({"error": {"message": "x" * 190 + KEY}}),
        json.dumps({"error": {"message": (KEY + " ") * 20_000}}),
        KEY * 20_000,
    ],
    ids=["plain", "part", "error", "at the cut", "500 kB", "500 kB plain"],
)
@pytest.mark.parametrize("status", [200, 401, 500])
def test_an_echoed_key(server: Server, body: str, status: int) -> None:
    server.says(body.encode(), status)
    failure()


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("place", ["field", "word"])
def test_a_key_in_the_models_own_words(server: Server, place: str, escaped: bool) -> None:
    value = GOOD | ({KEY: []} if place == "field" else {"near": [KEY]})
    told = json.dumps(value)
    letters = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    server.tells(told.replace(KEY, letters) if escaped else told)
    failure()


MALFORMED: dict[str, bytes] = {
    "a page": b"<!doctype html><title>Sign in</title><script>var a = {}</script>",
    "nothing": b"",
    "cut JSON": b'{"choices": [{"message": {"content": "{',
    "an array": b"[]",
    "a number": b"17",
    "a long number": b"9" * 10_000,
    "null": b"null",
    "a text": b'"tiger"',
    "no choice": b'{"choices": []}',
    "choices of the wrong type": b'{"choices": {"message": 1}}',
    "an error with 200": b'{"error": {"message": "The model is asleep"}}',
    "an error that is null": b'{"error": null}',
    "content null": b'{"choices": [{"message": {"content": null, "tool_calls": [{}]}}]}',
    "content in parts": b'{"choices": [{"message": {"content": [{"text": "{}"}]}}]}',
    "a stream": b'data: {"choices": [{"delta": {"content": "{"}}]}\n\ndata: [DONE]\n\n',
    "no UTF-8": b'{"choices": "\xff\xfe\xfa"}',
    "gzip": b"\x1f\x8b\x08\x00garbage\x00\xff",
    "brackets": b"[" * 200_000,
    "without end": b" " * ((1 << 20) + 1),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_reply_is_one_sentence(server: Server, kind: str) -> None:
    server.says(MALFORMED[kind])
    said = failure()
    assert "language model" in said
    assert ("asleep" in said) == (kind == "an error with 200")


CONTENTS: dict[str, object] = {
    "empty": "",
    "prose": "I cannot help with that.",
    "an array": json.dumps(["lion"]),
    "brackets": "".join(['{"a":' for _ in range(100_000)]),
    "braces": "{" * 100_000,
    "cut": json.dumps(GOOD)[:-20],
    "one deeper": json.dumps({"words": GOOD}),
    "numbers": json.dumps(GOOD | {"near": [1, 2]}),
    "a surrogate": json.dumps(GOOD | {"near": ["\ud800"]}),
    "control characters": json.dumps(GOOD | {"near": ["li\x1b[31mon"]}),
    "marks": json.dumps(GOOD | {"near": ["..."]}),
    "thinking without end": "<think>" + json.dumps(GOOD),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_malformed_words_are_one_sentence(server: Server, kind: str) -> None:
    server.tells(CONTENTS[kind])
    assert "no usable words in 3 attempts" in failure()


@pytest.mark.parametrize("status", [204, 304, 404, 418, 599])
def test_a_status_without_words_is_one_sentence(server: Server, status: int) -> None:
    server.says(b"", status)
    assert "language model" in failure()


@pytest.mark.parametrize(
    "line",
    [b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids=["no HTTP", "hangs up", "no chunk"],
)
def test_what_is_no_http_is_one_sentence(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(line)

        Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(endpoint, "PAUSE", 0.0)
        for name, value in ((llm.KEY, KEY), (llm.MODEL, "m")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(llm.URL, f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        assert "cannot be reached" in failure()


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "letter by letter"])
def test_a_slow_endpoint_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.3)

    def slowly() -> Iterator[bytes]:
        while not server.over.wait(30 if silent else 0.05):
            yield b" "

    server.body = slowly
    assert "cannot be reached" in failure()


@pytest.mark.parametrize(
    "reply",
    [
        f'<think>Perhaps {{"near": []}}?</think>\n{json.dumps(GOOD)}',
        f"no tag before it</think>{json.dumps(GOOD)}",
        f"Sure! Here {{they}} are:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nGood luck :}}",
        f"First {json.dumps({'near': ['cat']})}, no: {json.dumps(GOOD)}",
    ],
)
def test_what_stands_around_the_words_is_left_out(server: Server, reply: str) -> None:
    server.tells(reply)
    made = ask()
    assert made.irrelevant.near == ("lion",) and made.synonyms == ("panthera tigris",)
