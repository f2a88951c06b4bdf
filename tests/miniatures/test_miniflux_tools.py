"""The tools that make MiniFlux: exact where they claim to be, seeded where they draw."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "miniflux"))

import data
import render
from train_flux import Stage
from train_recogniser import held_out, labels
from train_text import SIDES, answers

from erase_core.miniatures.miniflux.captions import Scene
from erase_core.miniatures.miniflux.world import RELATIONS
from erase_core.models.flux1.taesd import TinyVAE

needs_font = pytest.mark.skipif(
    not Path(render.FONT).exists(), reason="Debian's fonts-noto-color-emoji is not installed"
)


def test_convolutions_compute_exactly_the_projection():
    pictures = np.random.default_rng(0).integers(0, 255, (24, 128, 128, 3), dtype=np.uint8)
    projection, mean = data.principal_components(pictures)
    vae = TinyVAE()
    data.write_linear_encoder(vae, projection, mean)
    with torch.no_grad():
        latents = vae.encode(data.to_float(pictures))
    by_hand = torch.einsum(
        "zcyx,nchywx->nzhw",
        projection.reshape(16, 3, 8, 8),
        data.to_float(pictures).reshape(24, 3, 16, 8, 16, 8),
    ) - mean.reshape(1, 16, 1, 1)
    assert torch.allclose(latents, by_hand, atol=1e-4)
    assert torch.allclose(
        data.encode_all(projection, mean, pictures).float(), by_hand, atol=2e-2, rtol=2e-3
    )
    assert by_hand.square().mean().sqrt() == pytest.approx(1, abs=0.1)


@needs_font
def test_same_seed_draws_the_same_scene():
    made = []
    for _ in range(2):
        rng = random.Random(3)
        made.append([render.render(render.random_scene(rng), rng).tobytes() for _ in range(20)])
    assert made[0] == made[1]


@needs_font
@pytest.mark.parametrize("relation", RELATIONS)
def test_first_thing_stands_where_the_relation_says(relation):
    scene = Scene((0, 1), ("tiger", "lion"), relation=relation)
    (a, xa, ya, _), (b, xb, yb, _) = sorted(render.place(scene, random.Random(0)))
    assert (a, b) == (0, 1)
    expected = {"left of": xa < xb, "right of": xa > xb, "above": ya < yb, "below": ya > yb}
    assert expected.get(relation, True)


def test_held_out_combinations_are_an_eighth():
    rng = random.Random(0)
    drawn = [render.random_scene(rng) for _ in range(4000)]
    scenes = [scene for scene in drawn if scene.things and scene.ground]
    share = sum(held_out(scene) for scene in scenes) / len(scenes)
    assert 0.09 < share < 0.16


def test_labels_leave_open_what_a_picture_leaves_open():
    want = labels(
        [
            Scene((0,), ("tiger",), number=3, ground="red"),
            Scene((0, 5), ("tiger", "fox"), style="sepia"),
            Scene((), (), ground="blue"),
        ]
    )
    assert want["things"].sum(1).tolist() == [1, 2, 0]
    assert want["number"].tolist() == [3, -1, 0]
    assert want["layout"].tolist() == [0, -1, 0]
    assert want["colour"].tolist() == [0, -1, 4]


def test_a_stage_draws_what_it_is_for_more_often():
    stage = Stage("sides", 1, 1e-3, 1, pairs=3, sides=2)
    scenes = [
        Scene(),
        Scene((0,), ("tiger",)),
        Scene((0, 1), ("tiger", "lion"), relation="hugging"),
        Scene((0, 1), ("tiger", "lion"), relation="above"),
    ]
    assert [stage.weight(scene) for scene in scenes] == [0, 1, 3, 6]


@pytest.mark.parametrize("relation", SIDES)
def test_reader_is_asked_for_both_things_of_a_pair(relation):
    """Left, right, above, below: the first thing at the relation's side, the second opposite."""
    opposite = {"left of": "right of", "above": "below"}
    opposite |= {b: a for a, b in opposite.items()}
    told = dict(zip(SIDES, answers([Scene((3, 5), relation=relation)])[0].tolist(), strict=True))
    expected = dict.fromkeys(SIDES, -100) | {relation: 3, opposite[relation]: 5}
    assert told == expected
