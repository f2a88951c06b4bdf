"""A finished file of the same order is used again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from host.client import Client
from host.graphs import concept, draw, node, train
from host.pictures import difference, loras, picture

from erase_core.tensors import read_metadata


@pytest.fixture(scope="module")
def lora(server: Client) -> str:
    """Some eraser, by its name in the LoRA list."""
    run = server.run(train(steps=1, filename_prefix="some"))
    return str(run.ui("train")["eraseanything_train"][0]["file"])


def test_a_finished_file_is_used_again(server: Client) -> None:
    named = {"filename_prefix": "again/%concept%", "run": "as needed"}
    first = server.run(train(vae=["load", 2], **named))
    (made,) = first.ui("train")["eraseanything_train"]
    assert made["file"] == "again/tiger_00001.safetensors" and made["made"] == ""
    # What changes no byte may differ. Another graph, so that the host itself runs the node again.
    graph = train(preview_every=1, checkpoint_every=7, **named)
    graph |= draw(["train", 0]) | {
        "plot": node("LossGraphNode", loss=["train", 2], filename_prefix="plot"),
        "chart": node("PreviewImage", images=["train", 4]),
    }
    again = server.run(graph)
    assert again.ok, again.history["status"]
    (told,) = again.ui("train")["eraseanything_train"]
    assert told["file"] == made["file"] and told["made"] == "2025-06-15"
    assert not any(e["phase"] == "training" for e in again.events("eraseanything.progress"))
    last = again.events("eraseanything.progress")[-1]
    assert last["message"] == "Used again: again/tiger_00001.safetensors, made on 2025-06-15."
    assert told["history"] == [[pytest.approx(v, rel=1e-3) if v else v for v in row]
                               for row in made["history"]]  # fmt: skip
    fresh = server.run(train(vae=["load", 2], **named | {"run": "start anew"}) | draw(["train", 0]))
    assert fresh.ui("train")["eraseanything_train"][0]["file"] == "again/tiger_00002.safetensors"
    assert difference(picture(server, fresh), picture(server, again)) == 0


@pytest.mark.parametrize("other", ["seed", "settings", "concept", "patched", "pictures"])
def test_another_order_is_trained(lora: str, server: Client, other: str) -> None:
    """A file that something else went into, which no file tells, is never used again."""
    named = {"filename_prefix": f"other/{other}", "run": "as needed", "image_prompts": "a wall"}
    patch = {"model": ["load", 0], "strength_model": 1.0, "lora_name": lora}
    wall = {"width": 64, "height": 64, "batch_size": 1, "color": 3377032}
    more = {"lora": node("LoraLoaderModelOnly", **patch), "wall": node("EmptyImage", **wall)}
    changed = {
        "seed": ("train", "seed", 1),
        "settings": ("settings", "lr_low", 0.002),
        "concept": ("concept", "irrelevant_near", "maple"),
        "patched": ("train", "model", ["lora", 0]),
        "pictures": ("train", "images", ["wall", 0]),
    }

    def run(preview_every: int, *change: Any) -> None:
        graph = train("oak", 1, vae=["load", 2], preview_every=preview_every, **named) | more
        for name, key, value in change:
            graph[name]["inputs"][key] = value
        told = server.run(graph)
        assert told.ok and "eraseanything_train" in told.ui("train"), told.history["status"]

    run(0, changed[other])
    run(0)
    run(5, changed[other])
    files = list((loras(server) / "other").glob(f"{other}_*"))
    assert len(files) == (3 if other in ("patched", "pictures") else 2)


def test_a_partial_file_is_not_used_again(server: Client) -> None:
    named = {"filename_prefix": "part", "run": "as needed", "checkpoint_every": 0}
    cancelled = server.run(train("oak", steps=2000, **named), cancel_at=1)
    assert cancelled.events("execution_interrupted")
    (partial,) = loras(server).glob("part_00001.partial-*")
    named_whole = partial.with_name("part_00001.safetensors")  # whatever it is called
    named_whole.write_bytes(partial.read_bytes())
    again = server.run(train("oak", steps=2000, preview_every=1, **named), cancel_at=1)
    assert again.events("execution_interrupted")


def test_an_eraser_grows(server: Client) -> None:
    """One node's eraser is what another starts from; a file does as well as the socket."""
    second = {"filename_prefix": "grow/two", "run": "as needed"}
    first = server.run(train("tiger", filename_prefix="grow/one", run="as needed"))
    (made,) = first.ui("train")["eraseanything_train"]
    graph = train("car", extend_file=made["file"], **second)
    grown = server.run(graph)
    assert grown.ok, grown.history["status"]
    (told,) = grown.ui("train")["eraseanything_train"]
    about = read_metadata(told["path"])
    names = [c["name"] for c in json.loads(about["erase.concepts"])["concepts"]]
    assert names == ["tiger", "car"] and about["erase.extends"]

    graph = train("tiger", filename_prefix="grow/one", run="as needed") | {
        "concept2": concept("car")["concept"],
        "second": train("car", **second)["train"],
    }
    graph["second"]["inputs"] |= {"concepts": ["concept2", 0], "extend": ["train", 1]}
    both = server.run(graph)
    (again,) = both.ui("second")["eraseanything_train"]
    assert again["file"] == told["file"] and again["made"]

    refused = server.run(train("tiger", filename_prefix="grow/no", extend_file=told["file"]))
    assert 'erases "tiger" already' in str(refused.history["status"])
