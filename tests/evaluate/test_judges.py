"""Who says what pictures show: a network's classes, and a vision model that is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from erase_core import endpoint
from erase_core.cli.main import main
from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.endpoint import Endpoint
from erase_core.errors import EraseError
from erase_core.evaluate.judges.classifier import ImageClassifier, open_classifier
from erase_core.evaluate.judges.vlm import KEY, OPTIONS, VisionModel, read_answer
from erase_core.evaluate.judges.words import WordJudge

LABELS = ["tench, Tinca tinca", "tiger, Panthera tigris", "lion, king of beasts", "sports_car"]
TIGER = Concept(
    "tiger", synonyms=("big cat",), irrelevant=Bands(none=("sports car", "rose"), near=("lion",))
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A ViT with four classes and random weights in transformers' layout."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    more = {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = ViTConfig(**sizes, **more, id2label=dict(enumerate(LABELS)))
    network = ViTForImageClassification(config)
    for parameter in network.parameters():  # else every picture looks alike to it
        torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_a_classifier_calls_a_picture_by_its_highest_class(vit: Path) -> None:
    judge = open_classifier(vit)
    assert isinstance(judge, ImageClassifier)
    assert judge.knows("Tigers") and judge.knows("panthera tigris") and judge.knows("sports car")
    assert not judge.knows("big cat") and not judge.knows("car")
    generator = torch.Generator().manual_seed(1)
    flat = torch.randint(256, (6, 1, 1, 3), generator=generator)  # a colour a picture, and noise
    noise = torch.randint(-20, 20, (6, 40, 48, 3), generator=generator)
    pictures = (flat + noise).clamp(0, 255).byte()
    network = ViTForImageClassification.from_pretrained(vit).eval()
    best = []
    for picture in pictures.numpy():  # what the paper's preprocessing says, by hand
        small = Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        best.append(int(network(pixels).logits.detach().argmax()))
    assert len({*best}) > 1
    words = ["tench", "tiger", "lion", "sports car"]
    for index, word in enumerate(words):
        assert list(judge.shown(pictures, [word] * 6, words)) == [b == index for b in best]


def test_words_without_a_class_are_not_asked_for(vit: Path) -> None:
    judge = WordJudge(open_classifier(vit))
    exam = judge.exam(ConceptSet((TIGER,)), 4)
    assert {q.word for q in exam.roles["other"]} == {"sports car"}
    assert exam.names == ("tiger", "sports car", "lion")
    with pytest.raises(EraseError, match='no class called "rose"'):
        judge.exam(ConceptSet((Concept("rose", irrelevant=Bands(none=("lion",))),)), 4)
    with pytest.raises(EraseError, match="no image classifier in"):
        open_classifier(vit.parent)


class Server(HTTPServer):
    """Says what ``answers`` has for the word that is asked for, else the next of ``queue``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.queue: list[tuple[int, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.seeing = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body | {"key": self.headers["Authorization"]})
        code, content = (200, _see(body)) if self.server.seeing else self.server.queue.pop(0)
        reply = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: Any) -> None:
        return


def _see(body: dict[str, Any]) -> str:
    """A model that sees a tiger in every bright picture, and nothing else."""
    text, picture = body["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    bright = np.asarray(Image.open(BytesIO(data))).mean() > 127
    return "Yes." if bright and '"tiger"' in text["text"] else "no"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(endpoint, "PAUSE", 0.01)
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("yes", True), ("No.", False), (' "YES" ', True), ("**no**", False), ("Yes!\n", True),
        ("<think>no, yes, hm</think>\nyes", True), ("yes and no", None), ("maybe", None),
        ("", None), ("yesterday", None), ("I see no tiger", None), ("not", None),
    ],
)  # fmt: skip
def test_an_answer_is_a_bare_yes_or_no(reply: str, answer: bool | None) -> None:
    assert read_answer(reply) is answer


def test_a_vision_model_is_asked_about_every_picture(server: Server) -> None:
    server.seeing = True
    judge = WordJudge(VisionModel(Endpoint(server.url, "secret", "eyes", OPTIONS)))
    exam = judge.exam(ConceptSet((TIGER,)), 2)
    pictures = torch.zeros(len(exam.questions()), 8, 8, 3, dtype=torch.uint8)
    pictures[0] = 255  # the first of two tigers
    marks = judge.mark(exam, pictures)
    assert {role: rate.hits for role, rate in marks.rates.items()} == {
        "erased": 1, "seen": 0, "near": 0, "other": 0,
    }  # fmt: skip
    assert len(server.asked) == len(pictures)
    assert {asked["key"] for asked in server.asked} == {"Bearer secret"}
    assert {asked["model"] for asked in server.asked} == {"eyes"}


def test_what_is_no_answer_is_asked_again_and_then_refused(server: Server) -> None:
    judge = VisionModel(Endpoint(server.url, "", "eyes", OPTIONS))
    picture = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    server.queue = [(503, ""), (200, "Well"), (200, "yes")]
    assert judge.shown(picture, ["tiger"], ["tiger"]) == [True]
    server.queue = [(200, "I would rather not say")] * 3
    with pytest.raises(EraseError, match="I would rather not say.* where yes or no was asked"):
        judge.shown(picture, ["tiger"], ["tiger"])
    server.queue = [(401, "")]
    with pytest.raises(EraseError, match="check --vlm, ERASEANYTHING_VLM_KEY and --vlm-model"):
        judge.shown(picture, ["tiger"], ["tiger"])


def test_concepts_are_examined_on_any_model(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A killed examination goes on: nothing is drawn or asked twice."""
    monkeypatch.setenv(KEY, "secret-of-mine")
    server.seeing = True
    ConceptSet((TIGER,)).save(tmp_path / "tiger.json")
    argv = ["bench", "--suite", "concepts", "--concepts", str(tmp_path / "tiger.json")]
    argv += ["--vlm", server.url, "--vlm-model", "eyes", "--exam", "2", "--steps", "1"]
    argv += ["--out", str(tmp_path / "out"), "--json"]
    assert main(argv) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["eraser"] == "untouched" and row["concept"] == "tiger"
    assert {row[name]["count"] for name in ("acc_e", "acc_g")} == {2} and row["acc_ir"][
        "count"
    ] == 4
    assert row["judge"] == "eyes (yes or no)" and row["size"] == "128x128" and row["steps"] == 1
    asked = len(server.asked)
    assert main([*argv, "--overwrite"]) == 0 and len(server.asked) == asked
    assert json.loads(capsys.readouterr().out)["rows"] == [row]
    assert "secret-of-mine" not in (tmp_path / "out" / "concepts.json").read_text()
    assert main([*argv, "--overwrite", "--steps", "2"]) == 1  # other pictures
    assert "pictures of another order (steps)" in capsys.readouterr().err
    assert main([*argv, "--overwrite", "--judge", str(tmp_path)]) == 1
    assert "--judge or --vlm" in capsys.readouterr().err
