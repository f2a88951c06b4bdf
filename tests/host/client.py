"""A client of ComfyUI's: prompts over HTTP, messages over a websocket."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

Graph = dict[str, dict[str, Any]]
PATIENCE = 180  # seconds a run may take


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Run:
    """What a run left: its history, and the JSON messages about it as (type, data)."""

    prompt_id: str
    history: dict[str, Any]
    messages: list[tuple[str, dict[str, Any]]]
    binaries: list[bytes]

    @property
    def ok(self) -> bool:
        return self.history["status"]["status_str"] == "success"

    @property
    def error(self) -> str:
        """The sentence on the node that failed."""
        return str(self._failure["exception_message"]).strip()

    @property
    def error_type(self) -> str:
        """What the host calls that error."""
        return str(self._failure["exception_type"])

    @property
    def _failure(self) -> dict[str, Any]:
        return dict(self.history["status"]["messages"])["execution_error"]

    def ui(self, node: str) -> dict[str, Any]:
        return self.history["outputs"][node]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [data for kind, data in self.messages if kind == name]


@dataclass
class Client:
    """One live server."""

    port: int
    base: Path
    pid: int
    client_id: str = "tests"
    _socket: websocket.WebSocket | None = field(default=None, repr=False)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as reply:
            return json.load(reply)

    def post(self, path: str, value: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(value).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                body = reply.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        return json.loads(body) if body else None

    def answers(self) -> bool:
        try:
            self.get("/system_stats")
        except OSError:
            return False
        return True

    def queue(self, graph: Graph) -> str:
        reply = self.post("/prompt", {"prompt": graph, "client_id": self.client_id})
        assert "prompt_id" in reply, reply
        return str(reply["prompt_id"])

    def run(self, graph: Graph, cancel_at: int | None = None) -> Run:
        """Run a graph to its end; ``cancel_at`` interrupts it at that step of training."""
        self.connect()
        prompt_id = self.queue(graph)
        run = Run(prompt_id, {}, [], [])
        for kind, message in self._messages():
            if kind == websocket.ABNF.OPCODE_BINARY:
                run.binaries.append(message)
                continue
            told = json.loads(message)
            data = told.get("data", {})
            if data.get("prompt_id", prompt_id) != prompt_id:
                continue
            run.messages.append((told["type"], data))
            training = told["type"] == "eraseanything.progress" and data["phase"] == "training"
            if training and cancel_at is not None and data["step"] >= cancel_at:
                self.post("/interrupt", {})
                cancel_at = None
            over = ("execution_success", "execution_error", "execution_interrupted")
            if told["type"] in over:
                break
        run.history = self.finished(prompt_id)
        return run

    def finished(self, prompt_id: str) -> dict[str, Any]:
        """The history of a run, once it is over."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.get(f"/history/{prompt_id}")
            if prompt_id in found:
                return found[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(prompt_id)

    def connect(self) -> None:
        """Open a websocket of our own, as a page that was just loaded does."""
        if self._socket is not None:
            self._socket.close()
        url = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}"
        self._socket = websocket.create_connection(url, timeout=PATIENCE)

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """Whole messages from the server: their kind and content."""
        assert self._socket is not None
        while (message := self._socket.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
            yield message
