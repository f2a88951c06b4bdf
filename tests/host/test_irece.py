"""IRECE on the host's own model classes at toy size: where it finds its mask, and what it does."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import pytest
import torch
from host.client import Client
from host.toy_graphs import CFG, FAMILIES, graph, guard, run, sample, save, saved
from PIL import Image

pytestmark = pytest.mark.usefixtures("offered")


@pytest.mark.parametrize("family", FAMILIES)
def test_some_places_are_begun_anew_once(toys: Client, family: str) -> None:
    """From a picture of something, with a prompt that says nothing; the node shows the mask."""
    cfg = CFG.get(family, 4.0)
    told = run(
        toys,
        graph(family, "a picture", seed=3)
        | {
            "on": guard(["toy", 0], method="irece", limit=1.0),
            "plain": sample(["toy", 0], cfg, denoise=0.7),
            "drawn": sample(["on", 0], cfg, denoise=0.7),
        }
        | {f"save {name}": save(name) for name in ("plain", "drawn")},
    )
    events = told.events("eraseanything.guard")
    shares = {event["strength"]["tiger"][0] for event in events}
    assert len(events) == 4 and len(shares) == 1 and 0 < min(shares) < 1
    (url,) = {event["mask"] for event in events}
    shown = Image.open(BytesIO(base64.b64decode(url.split(",")[1])))
    mask = torch.tensor(list(shown.convert("L").tobytes())) > 127
    assert mask.float().mean() == pytest.approx(min(shares), abs=0.01)
    plain, drawn = saved(toys, "plain").reshape(-1, 8 * 6), saved(toys, "drawn").reshape(-1, 8 * 6)
    moved = (plain - drawn).abs().mean(0)
    if len(mask) == len(moved):
        assert moved[mask].mean() > 2 * moved[~mask].mean()
    assert len({event["step"] for event in events}) == 4


def test_a_model_that_keeps_text_and_image_apart_is_refused(toys: Client) -> None:
    graph_: dict[str, Any] = graph("sd15") | {
        "on": guard(["toy", 0], method="irece"),
        "drawn": sample(["on", 0], 4.0),
    }
    done = toys.run(graph_ | {"save": save("drawn")})
    assert not done.ok and "keeps text and image apart" in done.error
