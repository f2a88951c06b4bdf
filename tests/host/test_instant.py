"""Erase Concept (instant), and closed forms from the training node, through a live ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from host import graphs
from host.client import Client, Graph
from host.graphs import draw, load, node, train
from host.pictures import difference, loras, picture
from PIL import Image

from erase_core.concepts.sets import ConceptSet
from erase_core.methods.base import Task, find_method, methods
from erase_core.miniatures import miniflux
from erase_core.tensors import read_tensors


def test_a_closed_form_goes_wherever_a_lora_goes(server: Client) -> None:
    solved = train(filename_prefix="solved", method="uce")
    assert "disconnect them for uce" in server.run(solved).error  # Erase Settings are not its own
    del solved["train"]["inputs"]["settings"]
    half = {"weight_1": 0.5, "weight_2": 0.5}
    graph = solved | draw(["train", 0]) | {
        "both": node(
            "EraseAnythingCombine", method="cat", lora_1=["train", 1], lora_2=["train", 1], **half
        ),
        "keep": node(
            "EraseAnythingSave", lora=["both", 0], filename_prefix="halves", folder="models/loras"
        ),
        "look": node(
            "EraseAnythingPreview", model=["load", 0], clip=["load", 1], vae=["load", 2],
            prompts="a tiger on a green background", strengths="0, 1", seed=1, seeds=1, width=128,
            height=128, steps=4, guidance=3.5, blur=False, lora=["both", 0],
        ),
        "pair": node("SaveImage", images=["look", 1], filename_prefix="pair"),
    }  # fmt: skip
    run = server.run(graph)
    assert run.ok, run.history["status"]
    (told,) = run.ui("train")["eraseanything_train"]
    assert told["file"] == "solved_00001.safetensors" and told["stopped"] == "done"
    assert told["steps"] == 0 and told["history"] == []
    tensors, metadata = read_tensors(loras(server) / told["file"])
    assert set(tensors) == {f"diffusion_model.{at}.diff" for at in ("txt_in", "vector_in.in_layer")}
    assert json.loads(metadata["erase.concepts"])["concepts"][0]["name"] == "tiger"
    halves, _ = read_tensors(loras(server) / "halves_00001.safetensors")
    assert all((halves[key] - tensors[key]).abs().max() < 1e-6 for key in tensors)
    without, erased = (
        Image.open(server.base / "output" / item["filename"]).convert("RGB")
        for item in run.ui("pair")["images"]
    )
    assert difference(without, erased) > 50
    assert difference(picture(server, run), erased) <= 1  # the node's own MODEL draws the same


INSTANT = [name for name, method in methods().items() if method.product and not method.forward]


@pytest.mark.parametrize("method", INSTANT)
def test_an_instant_eraser_is_the_methods_own(method: str, server: Client, tmp_path: Path) -> None:
    """The same file as the method makes of MiniFlux outside of the host, drawn with by the host."""
    graph = instant(method, filename_prefix=f"instant-{method}")
    run = server.run(graph | draw(["instant", 0]))
    assert run.ok, run.history["status"]
    (told,) = run.ui("instant")["eraseanything_instant"]
    assert told["file"] == f"instant-{method}_00001.safetensors" and not told["missed"]
    tensors, metadata = read_tensors(loras(server) / told["file"])
    assert metadata["erase.method"] == method
    assert json.loads(metadata["erase.settings"])["prompts"] == 6

    concepts = ConceptSet.from_json(json.loads(metadata["erase.concepts"]))
    made = find_method(method).erase(Task(miniflux.load(), concepts), changes={"prompts": 6})
    assert made.eraser is not None
    wanted = made.eraser.tensors()
    assert tensors.keys() == wanted.keys()
    for key, tensor in tensors.items():
        assert (tensor - wanted[key]).norm() < 1e-2 * wanted[key].norm(), key
    made.eraser.save(tmp_path / "eraser.safetensors")
    drawn = picture(server, run)
    untouched = picture(server, server.run(graph | draw(["load", 0])))
    assert difference(untouched, drawn) > 20


def test_an_instant_eraser_of_low_rank_says_what_it_misses(server: Client) -> None:
    run = server.run(instant("uce", rank=8, filename_prefix="small"))
    assert run.ok, run.history["status"]
    (told,) = run.ui("instant")["eraseanything_instant"]
    tensors, metadata = read_tensors(loras(server) / told["file"])
    assert tensors["transformer.context_embedder.lora_A.weight"].shape[0] == 8
    assert 0 < told["missed"]["context_embedder"] < 1
    measured = json.loads(metadata["erase.measured"])
    assert measured["context_embedder"] == pytest.approx(told["missed"]["context_embedder"], 0.01)
    spoken = [data["text"] for data in run.events("progress_text") if "text" in data]
    assert not spoken or any("misses" in text for text in spoken)


def instant(method: str, **more: Any) -> Graph:
    """Nodes "load", "concept" and "instant"."""
    inputs = {
        "model": ["load", 0],
        "clip": ["load", 1],
        "concepts": ["concept", 0],
        "method": method,
        "strength": 1.0,
        "rank": 0,
        "prompts": 6,
        "seed": 0,
        "filename_prefix": "instant",
        "folder": "models/loras",
    }
    return load() | graphs.concept() | {"instant": node("EraseAnythingInstant", **inputs | more)}
