"""Words from a language model: a real HTTP endpoint that answers what each test wants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from erase_core import endpoint
from erase_core.concepts.sources import llm
from erase_core.concepts.sources.llm import concept_from_llm, parse
from erase_core.endpoint import Endpoint
from erase_core.errors import EraseError

WORDS = {
    "synonyms": ["Bengal cat", "tigers", "panthera tigris"],
    "none": ["violin", "sock"],
    "far": ["rose", "violin"],
    "mid": ["dog", "horse"],
    "near": ["lion", "leopard", "tiger"],
}


class Server(HTTPServer):
    """Answers the (status, content) pairs of ``queue`` in turn and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.queue: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.body = b""  # of what is no success


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        head = {"path": self.path, "key": self.headers["Authorization"]}
        self.server.asked.append(body | head)
        code, content = self.server.queue.pop(0)
        reply = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        reply = reply if code == 200 else self.server.body
        self.send_response(code)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv(llm.URL, f"http://127.0.0.1:{running.server_port}/v1/")
        monkeypatch.setenv(llm.KEY, "secret")
        monkeypatch.setenv(llm.MODEL, "some-model")
        monkeypatch.setattr(endpoint, "PAUSE", 0.01)
        yield running
        running.shutdown()


def ask() -> Any:
    return concept_from_llm(
        Endpoint.from_environment(llm.TOLD), "tiger", "entity", "the animal", 2, seed=7
    )


def test_a_good_answer_becomes_a_concept(server: Server) -> None:
    server.queue = [(200, f"```json\n{json.dumps(WORDS)}\n```")]
    concept = ask()
    assert concept.synonyms == ("Bengal cat", "panthera tigris")  # no inflection of the name
    assert concept.irrelevant.none == ("violin", "sock") and concept.irrelevant.far == ("rose",)
    assert concept.irrelevant.near == ("lion", "leopard") and concept.sense == "the animal"
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions" and asked["key"] == "Bearer secret"
    assert asked["model"] == "some-model" and asked["seed"] == 7 and asked["temperature"] == 0
    assert '"tiger" (entity), in the sense of: the animal' in asked["messages"][1]["content"]


def test_a_busy_endpoint_is_asked_again(server: Server) -> None:
    server.queue = [(429, ""), (503, ""), (200, json.dumps(WORDS))]
    assert ask().name == "tiger" and len(server.asked) == 3


def test_a_bad_answer_is_sent_back_with_what_is_wrong(server: Server) -> None:
    server.queue = [(200, "Sure! Here are the words."), (200, json.dumps(WORDS))]
    assert ask().name == "tiger"
    assert "no JSON" in server.asked[1]["messages"][-1]["content"]
    server.queue = [(200, "[]")] * 3
    with pytest.raises(EraseError, match="no usable words in 3 attempts"):
        ask()


def test_a_refusal_and_silence_are_one_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.queue = [(401, "")]
    with pytest.raises(EraseError, match="answered 401 .* check ERASEANYTHING_LLM_URL"):
        ask()
    monkeypatch.setenv(llm.URL, "http://127.0.0.1:9/v1")
    with pytest.raises(EraseError, match="cannot be reached .* or take the words from WordNet"):
        ask()


def test_a_model_that_refuses_temperature_and_seed_is_asked_without(server: Server) -> None:
    server.queue = [(400, ""), (200, json.dumps(WORDS))]
    assert ask().name == "tiger"
    assert server.asked[1].keys() == server.asked[0].keys() - {"temperature", "seed"}


def test_a_refusal_tells_what_the_endpoint_says_but_no_key(server: Server) -> None:
    server.body = b'{"error": {"message": "The key secret\\n may not use some-model"}}'
    server.queue = [(403, "")]
    with pytest.raises(
        EraseError, match=r"403 .* \(The key \.\.\. may not use some-model\); check"
    ):
        ask()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"near": None}, "near is no list"),
        ({"near": [1]}, "near is no list"),
        ({"near": ["tiger"]}, "near has no word"),
        ({"near": ["x" * 61]}, "more than 60"),
        ({"comment": "hi"}, "nobody asked for"),
    ],
)
def test_an_answer_is_read_strictly(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(EraseError, match=problem):
        parse(json.dumps(WORDS | change), "tiger", "entity")
    with pytest.raises(EraseError, match="lacks synonyms"):
        parse("{}", "tiger", "entity")


def test_what_is_not_set_up_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(llm.URL, raising=False)
    with pytest.raises(EraseError, match="set ERASEANYTHING_LLM_URL in the environment"):
        Endpoint.from_environment(llm.TOLD)
    monkeypatch.setenv(llm.URL, "file:///etc/passwd")
    monkeypatch.setenv(llm.MODEL, "m")
    with pytest.raises(EraseError, match="no web address"):
        Endpoint.from_environment(llm.TOLD)
    assert "secret" not in repr(Endpoint("http://x", "secret", "m", llm.TOLD))
