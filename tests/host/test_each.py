"""A list of concepts as one job: it can be stopped, goes on, and outlives what fails."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
from host.client import Client, Graph
from host.graphs import SMALL, load, node
from host.pictures import loras

MOST = 60e6  # bytes that the server may grow by while three more erasers are made


def each(names: str, steps: int = 3, **more: Any) -> Graph:
    """Nodes "load", "settings" and "each"."""
    settings = SMALL | {key: value for key, value in more.items() if key in SMALL}
    own = {key: value for key, value in more.items() if key not in SMALL}
    inputs = {
        "model": ["load", 0],
        "clip": ["load", 1],
        "names": names,
        "source": "MiniFlux",
        "steps": steps,
        "seed": 0,
        "filename_prefix": "each/%concept%",
        "folder": "models/loras",
        "count": 0,
        "settings": ["settings", 0],
    }
    return {
        **load(),
        "settings": node("EraseAnythingSettings", **settings),
        "each": node("EraseAnythingEach", **inputs | own),
    }


def rows(run: Any) -> list[dict[str, Any]]:
    return run.ui("each")["eraseanything_each"][0]["rows"]


def test_a_list_is_made_and_what_fails_fails_alone(server: Client) -> None:
    run = server.run(each("tiger\n# no\n\na winged xylophone\ncar", filename_prefix="a/%concept%"))
    assert run.ok, run.history["status"]
    tiger, none, car = rows(run)
    assert tiger["file"] == "a/tiger_00001.safetensors" and tiger["said"] == "done"
    assert none["failed"] and "MiniFlux does not know" in none["said"] and not none["file"]
    assert car["file"] == "a/car_00001.safetensors" and not car["failed"]
    told = run.events("eraseanything.each")
    assert [event["now"] for event in told] == ["tiger", "a winged xylophone", "car", ""]

    again = server.run(
        each("car\ntiger\nfox", vae=["load", 2], count=2, filename_prefix="a/%concept%")
    )
    files = [row["file"] for row in rows(again)]
    assert files == [car["file"], tiger["file"], "a/fox_00001.safetensors"]
    assert all("everything else" in row["said"] for row in rows(again))
    assert len(list((loras(server) / "a").glob("*.safetensors"))) == 3


def test_a_list_that_was_cancelled_goes_on(server: Client) -> None:
    """The one that was cut short ends with the bytes of one that was not."""
    named = {"filename_prefix": "cut/%concept%", "checkpoint_every": 100}
    whole = server.run(each("fox", 12, **named | {"filename_prefix": "whole/%concept%"}))
    assert server.run(each("tiger", 12, **named)).ok
    cut = server.run(each("tiger\nfox", 12, **named), cancel_at=4)
    assert cut.events("execution_interrupted")
    assert list((loras(server) / "cut").glob("fox_00001.partial-*"))
    again = server.run(each("tiger\nfox", 12, **named))
    told = [e for e in again.events("eraseanything.progress") if e["phase"] == "training"]
    assert min(event["step"] for event in told) > 3
    tiger, fox = rows(again)
    assert tiger["said"].startswith("made on") and fox["said"] == "done"
    assert not list((loras(server) / "cut").glob("*partial*"))
    files = [loras(server) / row["file"] for row in (rows(whole)[0], fox)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_memory_stays_flat(server: Client) -> None:
    def grown(names: str) -> int:
        assert server.run(each(names, filename_prefix=f"flat/{len(names)}%concept%")).ok
        return psutil.Process(server.pid).memory_info().rss

    before = grown("tiger\ncar")
    assert grown("fox\ndog\nrose\nbus\nowl") - before < MOST


def test_an_empty_list_is_refused(server: Client) -> None:
    run = server.run(each("# nothing"))
    assert "There is no concept" in str(run.history["status"])


pytestmark = pytest.mark.host
