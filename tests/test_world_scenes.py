"""The small world's scenes, captions and pictures: seeded, and true to what they say."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tools.world.captions import HELD_OUT, TRAINING, Voice, caption, misspell_word
from tools.world.render import GRID, SIZE, Sprites, place, render
from tools.world.scene import CONVERSE, Scene, random_scene, spoken
from tools.world.world import (
    ARTISTS,
    ENTITIES,
    IMPLICIT,
    IMPLICIT_HELD_OUT,
    INDEX,
    PEOPLE,
    RELATIONS,
    SPOOKY,
    THINGS,
)


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    """A disc for every entity, in a colour of its own."""

    def disc(entity: int, hand: int) -> Image.Image:
        image = Image.new("RGBA", (32, 32))
        colour = (entity * 2 + 20, 250 - entity * 2, 40 * hand, 255)
        ImageDraw.Draw(image).ellipse((1, 1, 30, 30), fill=colour)
        return image

    things = {
        f"{artist}/{ENTITIES[i].name}/0": disc(i, hand)
        for i in THINGS
        for hand, artist in enumerate(ARTISTS)
    }
    return Sprites(things | {f"{ENTITIES[i].name}/0": disc(i, 0) for i in PEOPLE})


def test_world_has_sixty_things_and_twenty_four_people():
    assert len(PEOPLE) == 24
    assert len(THINGS) == 64 and len(SPOOKY) == 5
    assert len(INDEX) == len(ENTITIES) == 88


def test_no_word_means_two_things_or_is_both_trained_and_held_out():
    owner: dict[str, str] = {}
    for entity in ENTITIES:
        said = (entity.name, *entity.synonyms, *entity.descriptions)
        held = (*entity.held_out, *entity.held_descriptions)
        for word in said + held:
            assert owner.setdefault(word, entity.name) == entity.name, word
        assert not set(said) & set(held)
    assert not set(IMPLICIT) & set(IMPLICIT_HELD_OUT)


def test_same_seed_makes_the_same_scenes_captions_and_pictures(sprites):
    made = []
    for _ in range(2):
        rng = random.Random(3)
        scenes = [random_scene(rng) for _ in range(30)]
        told = [caption(spoken(scene, rng), TRAINING, rng) for scene in scenes]
        made.append((told, [render(scene, sprites, rng).tobytes() for scene in scenes]))
    assert made[0] == made[1]


def test_chance_moves_what_is_drawn(sprites):
    rng = random.Random(1)
    scene = Scene((INDEX["tiger"],), artist="Norell", colour="blue", ground="plain")
    pictures = np.stack([np.asarray(render(scene, sprites, rng)) for _ in range(16)]) / 255.0
    assert np.abs(pictures[1:] - pictures[:-1]).mean() > 0.05


@pytest.mark.parametrize("relation", RELATIONS[:4])
def test_first_of_two_stands_where_the_relation_says(relation):
    scene = Scene((INDEX["cat"], INDEX["car"]), relation=relation, colour="red")
    for seed in range(20):
        a, b = place(scene, random.Random(seed))
        assert (a.entity, b.entity) == scene.subjects
        holds = {
            "left of": a.x < b.x,
            "right of": a.x > b.x,
            "above": a.y < b.y,
            "below": a.y > b.y,
        }
        assert holds[relation]


def test_a_side_told_from_the_other_thing_says_the_same():
    scene = Scene((0, 1), relation="left of", colour="red")
    told = {spoken(scene, random.Random(seed)) for seed in range(40)}
    sides = {(said.subjects, said.relation) for said in told if said.relation}
    assert sides == {((0, 1), "left of"), ((1, 0), CONVERSE["left of"])}


def test_everything_stands_inside_the_picture_with_its_edges_on_the_grid():
    rng = random.Random(2)
    for _ in range(300):
        for spot in place(random_scene(rng), rng):
            edges = (spot.x - spot.size // 2, spot.y - spot.size // 2)
            assert all(edge % GRID == 0 and 0 <= edge <= SIZE - spot.size for edge in edges)


def test_captions_name_what_is_said_and_never_the_spooky():
    rng = random.Random(4)
    names = [ENTITIES[index].name for index in SPOOKY]
    for _ in range(200):
        scene = random_scene(rng)
        if scene.spooky:
            told = caption(Scene(spooky=scene.spooky), Voice(words="name"), rng)
            assert not any(name in told for name in names)
        if len(scene.subjects) == 1 and scene.number == 1 and not scene.spooky:
            assert ENTITIES[scene.subjects[0]].name in caption(scene, HELD_OUT, rng)


def test_a_misspelled_word_differs_in_one_place():
    rng = random.Random(5)
    for _ in range(100):
        wrong = misspell_word("elephant", rng)
        assert wrong[0] == "e" and abs(len(wrong) - 8) <= 1
