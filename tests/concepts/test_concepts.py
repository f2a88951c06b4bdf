"""Concept sets, inflection, sentences and shipped lists against hand-written English."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from erase_core.concepts.find import describe, find_concept, with_words
from erase_core.concepts.inflect import article, form_of, inflect, plural, singular
from erase_core.concepts.sentences import Order, Sentence, build, replace, shuffle, sides, without
from erase_core.concepts.sets import BANDS, Bands, Concept, ConceptSet, Kind
from erase_core.concepts.sources import lists as shipped
from erase_core.concepts.spans import word_spans
from erase_core.errors import EraseError

TIGER: dict[str, Any] = {
    "name": "tiger",
    "kind": "entity",
    "sense": "tiger.n.02",
    "synonyms": ["Panthera tigris"],
    "irrelevant": {"none": ["rain"], "far": ["car"], "mid": ["rose"], "near": ["lion", "cat"]},
    "sentences": ["a tiger in the snow"],
}


def as_json(*concepts: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "concepts": list(concepts)}


def order(seed: int = 0) -> Order:
    rng = random.Random(seed)
    return lambda count: rng.sample(range(count), count)


# --- sets -----------------------------------------------------------------------------------------


def test_set_reads_and_writes_the_contract(tmp_path: Path) -> None:
    value = as_json(TIGER, {**TIGER, "name": "hug", "kind": "relationship", "synonyms": []})
    concepts = ConceptSet.from_json(value)
    assert concepts.concepts[0].irrelevant == Bands(("rain",), ("car",), ("rose",), ("lion", "cat"))
    assert concepts.concepts[0].irrelevant_words() == ("rain", "car", "rose", "lion", "cat")
    assert concepts.concepts[1].kind == "relationship"
    path = tmp_path / "set.json"
    concepts.save(path)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert ConceptSet.load(path) == concepts
    assert concepts.to_json() == value
    assert hash(concepts) == hash(ConceptSet.load(path))


def test_missing_lists_are_empty() -> None:
    concept = ConceptSet.from_json(as_json({"name": " tiger "})).concepts[0]
    assert concept == Concept("tiger", "entity")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "version is 2"),
        (("version",), "1", "version is '1'"),
        (("version",), True, "version is True"),
        (("concepts",), {}, "concepts must be a list"),
        (("concepts",), [], "concepts is empty"),
        (("extra",), 1, "extra is no known field"),
        (("concepts", 0), "tiger", r"concepts\[0\] must be an object"),
        (("concepts", 0, "name"), "", r"concepts\[0\].*empty entry"),
        (("concepts", 0, "name"), None, r"concepts\[0\]\.name must be a text"),
        (("concepts", 0, "kind"), "animal", r"concepts\[0\].*kind is 'animal'"),
        (("concepts", 0, "synonim"), [], r"concepts\[0\]\.synonim is no known field"),
        (("concepts", 0, "synonyms"), "cat", r"concepts\[0\]\.synonyms must be a list"),
        (("concepts", 0, "synonyms"), [3], r"concepts\[0\]\.synonyms\[0\] must be a text"),
        (("concepts", 0, "synonyms"), ["Tiger"], r"concepts\[0\].*\"Tiger\" is there twice"),
        (("concepts", 0, "irrelevant"), [], r"concepts\[0\]\.irrelevant must be an object"),
        (("concepts", 0, "irrelevant", "close"), [], r"irrelevant\.close is no known field"),
        (("concepts", 0, "irrelevant", "far"), ["lion"], r"irrelevant.*\"lion\" is there twice"),
        (
            ("concepts", 0, "irrelevant", "far"),
            ["tiger"],
            r"lists \"tiger\", which is to be erased",
        ),
        (("concepts", 0, "sentences"), [""], r"concepts\[0\].*sentences.*empty entry"),
        (("concepts", 1), TIGER, r"name: \"tiger\" is there twice"),
        (("concepts", 1), {"name": "lion"}, r"lists \"lion\", which another"),
    ],
)
def test_wrong_fields_are_named(path: tuple[Any, ...], value: object, message: str) -> None:
    broken = copy.deepcopy(as_json(TIGER))
    place: Any = broken
    for key in path[:-1]:
        place = place[key]
    if isinstance(place, list) and path[-1] == len(place):
        place.append(value)
    else:
        place[path[-1]] = value
    with pytest.raises(EraseError, match=message):
        ConceptSet.from_json(broken)


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"version": 9, "concepts": []}', encoding="utf-8")
    with pytest.raises(EraseError, match=r"bad\.json: version is 9"):
        ConceptSet.load(path)


def test_merge_joins_words_and_frees_what_is_erased() -> None:
    tiger = Concept("tiger", synonyms=("big cat",), irrelevant=Bands(far=("car",), near=("lion",)))
    lion = Concept("lion", irrelevant=Bands(near=("tiger", "cat")))
    again = Concept(
        "Tiger",
        synonyms=("big cat", "tigress"),
        irrelevant=Bands(mid=("car", "rose")),
        sentences=("a tiger",),
    )
    merged = ConceptSet((tiger,)).merge(ConceptSet((lion,))).merge(ConceptSet((again,)))
    assert merged.concepts == (
        Concept(
            "tiger",
            synonyms=("big cat", "tigress"),
            irrelevant=Bands(far=("car",), mid=("rose",)),
            sentences=("a tiger",),
        ),
        Concept("lion", irrelevant=Bands(near=("cat",))),
    )


def test_merge_refuses_two_kinds() -> None:
    with pytest.raises(EraseError, match="kind is entity and abstraction"):
        ConceptSet((Concept("red"),)).merge(ConceptSet((Concept("red", "abstraction"),)))


# --- inflection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "many"),
    [
        *[("tiger", "tigers"), ("fox", "foxes"), ("lady", "ladies"), ("toy", "toys")],
        *[("wolf", "wolves"), ("woman", "women"), ("snowman", "snowmen"), ("human", "humans")],
        *[("sheep", "sheep"), ("goldfish", "goldfish"), ("hot dog", "hot dogs")],
        *[("slice of pizza", "slices of pizza"), ("teddy-bear", "teddy-bears"), ("bus", "buses")],
    ],
)
def test_plural_and_back(one: str, many: str) -> None:
    assert plural(one) == many
    assert plural(many) == many
    if " of " not in one:
        assert singular(many) == one


def test_articles() -> None:
    expected = "a tiger, an owl, a unicorn, an umbrella, an hour, a house, a European, an uncle"
    assert ", ".join(f"{article(p.split()[1])} {p.split()[1]}" for p in expected.split(", ")) == (
        expected
    )


@pytest.mark.parametrize(
    ("phrase", "form", "expected"),
    [
        *[("hug", "ing", "hugging"), ("hug", "s", "hugs"), ("hug", "ed", "hugged")],
        *[("hugging", "s", "hugs"), ("ride", "ing", "riding"), ("ride", "ed", "rode")],
        *[("carry", "s", "carries"), ("carry", "ed", "carried"), ("tie", "ing", "tying")],
        *[("hold hands", "ing", "holding hands"), ("holding hands", "s", "holds hands")],
        *[("look at", "ing", "looking at"), ("left of", "ing", "left of")],
        *[("fox", "s", "foxes"), ("Taylor Swift", "s", "Taylor Swift"), ("snow", "s", "snow")],
    ],
)
def test_inflect(phrase: str, form: str, expected: str) -> None:
    assert inflect(phrase, form) == expected
    if form == "ing":
        assert form_of(expected, phrase) == ("base" if expected == phrase else "ing")


# --- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word", "kind", "new", "expected"),
    [
        ("two tigers", "tiger", "entity", "fox", "two foxes"),
        ("a tiger", "tiger", "entity", "elephant", "an elephant"),
        ("An owl and owls", "owl", "entity", "mouse", "A mouse and mice"),
        ("Tigers, a tiger's face", "tiger", "entity", "goose", "Geese, a goose's face"),
        ("two sheep", "sheep", "entity", "fox", "two foxes"),
        ("a tiger on a mat", "tiger", "entity", "Taylor Swift", "Taylor Swift on a mat"),
        ("a photo of a tiger", "tiger", "entity", "snow", "a photo of snow"),
        ("a photo of Taylor Swift", "Taylor Swift", "entity", "owl", "a photo of an owl"),
        ("Taylor Swift in the snow", "Taylor Swift", "entity", "fox", "A fox in the snow"),
        ("a Levi's logo", "Levi's", "entity", "Adidas", "an Adidas logo"),
        ("a red ball on red sand", "red", "abstraction", "orange", "an orange ball on orange sand"),
        ("in the style of Van Gogh", "Van Gogh", "abstraction", "Monet", "in the style of Monet"),
        ("a bear hugging a fox", "hug", "relationship", "kiss", "a bear kissing a fox"),
        (
            "a bear hugs it, hugged it",
            "hug",
            "relationship",
            "carry",
            "a bear carries it, carried it",
        ),
        ("a bear hugging a fox", "hug", "relationship", "left of", "a bear left of a fox"),
        ("a cat left of a car", "left of", "relationship", "push", "a cat pushing a car"),
        ("two men holding hands", "holding hands", "relationship", "kiss", "two men kissing"),
    ],
)
def test_replace(text: str, word: str, kind: Kind, new: str, expected: str) -> None:
    assert replace(Sentence(text, word, kind), new) == Sentence(expected, new, kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a tiger left of a car", "a car"),
        ("a car left of a tiger", "a car"),
        ("a tiger on a red background", "a red background"),
        ("two tigers", ""),
        ("a photo of a tiger in the snow", "a photo in the snow"),
        ("a car left of two big tigers on a red background", "a car on a red background"),
        ("a photo of a tiger and a lion", "a photo of a lion"),
        ("a lion, a tiger and a car", "a lion and a car"),
        ("a tiger, a lion and a car", "a lion and a car"),
        ("a bear hugging a tiger in a park", "a bear in a park"),
        ("a tiger is sleeping in a cage", "a cage"),
        ("the tiger runs through the grass", "the grass"),
        ("a photo of a tiger eating a fish", "a photo of a fish"),
        ("a photo of a tiger left of a car", "a photo of a car"),
        ("a group of tigers in a forest", "a forest"),
        ("there is a tiger in the forest", "the forest"),
        ("in the snow, a tiger", "the snow"),
        ("a tiger cub in a basket", "a cub in a basket"),
        ("a tiger's ear", "an ear"),
        ("a tiger-striped cat", "a cat"),
        ("a tiger and a tiger and a car", "a car"),
        ("a poster that shows a tiger", "a poster"),
        ("a photo of a tiger, highly detailed", "a photo, highly detailed"),
        ("a catalogue", "a catalogue"),
    ],
)
def test_without_entity(text: str, expected: str) -> None:
    assert without(Sentence(text, "tiger")) == expected


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("a cat on a red background", "red", "a cat on a background"),
        ("a mosaic picture of a cat", "mosaic", "a picture of a cat"),
        ("a mosaic elephant", "mosaic", "an elephant"),
        ("a cat in mosaic style", "mosaic", "a cat"),
        ("a painting in the style of Van Gogh", "Van Gogh", "a painting"),
        ("a cat, Van Gogh style", "Van Gogh", "a cat"),
        ("a Van Gogh style painting of a cat", "Van Gogh", "a painting of a cat"),
        ("in the style of Van Gogh, a cat in a garden", "Van Gogh", "a cat in a garden"),
        ("three bottles painted by Van Gogh", "Van Gogh", "three bottles"),
        ("a red and blue ball", "red", "a blue ball"),
        ("a blue and red ball", "red", "a blue ball"),
        ("a cat and red balls", "red", "a cat and balls"),
        ("the house is red", "red", "the house"),
        ("two cats at night", "night", "two cats"),
        ("two cats in a box", "two", "cats in a box"),
        ("a photo of a nude woman", "nude", "a photo of a woman"),
        ("a painting of a nude", "nude", "a painting"),
    ],
)
def test_without_abstraction(text: str, word: str, expected: str) -> None:
    assert without(Sentence(text, word, "abstraction")) == expected


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("a cat left of a car", "left of", "a cat and a car"),
        ("a cat is sitting to the left of a car", "left of", "a cat and a car"),
        ("a cat that is inside a box", "inside", "a cat and a box"),
        ("a bear hugging a fox", "hug", "a bear and a fox"),
        ("a bear hugs a fox", "hug", "a bear and a fox"),
        ("a bear giving a hug to a fox", "hug", "a bear and a fox"),
        ("a photo of a hug between a bear and a fox", "hug", "a photo of a bear and a fox"),
        ("two people hugging in the rain", "hug", "two people in the rain"),
        ("two hugging bears", "hug", "two bears"),
        ("a cat and a dog holding hands", "holding hands", "a cat and a dog"),
        ("a family holding hands in a park", "holding hands", "a family in a park"),
    ],
)
def test_without_relationship(text: str, word: str, expected: str) -> None:
    assert without(Sentence(text, word, "relationship")) == expected


EXAMPLES: list[tuple[str, Kind, str]] = [
    ("tiger", "entity", "lion"),
    ("scissors", "entity", "fox"),
    ("Taylor Swift", "entity", "Adele"),
    ("Van Gogh", "abstraction", "Claude Monet"),
    ("cubism", "abstraction", "anime"),
    ("red", "abstraction", "orange"),
    ("two", "abstraction", "three"),
    ("night", "abstraction", "dawn"),
    ("left of", "relationship", "above"),
    ("hug", "relationship", "kiss"),
    ("look at", "relationship", "chase"),
    ("holding hands", "relationship", "dancing"),
]


@pytest.mark.parametrize(("name", "kind", "other"), EXAMPLES)
def test_templates_are_broad_and_every_sentence_works(name: str, kind: Kind, other: str) -> None:
    sentences = build(Concept(name, kind), 60, order())
    assert len(sentences) == 60
    assert len({s.text for s in build(Concept(name, kind), 20, order())}) == 20
    for sentence in sentences:
        assert "{" not in sentence.text and "  " not in sentence.text
        assert word_spans(sentence.text, name), sentence
        assert not word_spans(without(sentence), name), sentence
        other_sentence = replace(sentence, other)
        assert word_spans(other_sentence.text, other) and not word_spans(other_sentence.text, name)
        assert word_spans(shuffle(sentence, order()).text, name)


def test_same_seed_same_sentences() -> None:
    tiger = Concept("tiger")
    assert build(tiger, 30, order(1)) == build(tiger, 30, order(1))
    assert build(tiger, 30, order(1)) != build(tiger, 30, order(2))


def test_fillers_never_name_what_is_erased() -> None:
    concept = Concept("pet", synonyms=("cat", "dog", "bird", "horse"))
    for sentence in build(concept, 200, order()):
        assert not any(word_spans(sentence.text, word) for word in concept.synonyms), sentence


def test_own_sentences_are_used_and_checked() -> None:
    own = ("a tiger in the snow", "three tigers")
    sentences = build(Concept("tiger", sentences=own), 5, order())
    assert sorted(s.text for s in sentences[:2]) == sorted(own)
    assert {s.text for s in sentences} == set(own)
    with pytest.raises(EraseError, match='"a lion" does not contain it'):
        build(Concept("tiger", sentences=(*own, "a lion")), 1, order())


def test_shuffle_moves_phrases_whole() -> None:
    sentence = Sentence("a photo of the Statue of Liberty in the snow", "Statue of Liberty")
    pieces = {"a photo", "of the Statue of Liberty", "in the snow"}
    seen = set()
    for seed in range(30):
        text = shuffle(sentence, order(seed)).text
        assert text == shuffle(sentence, order(seed)).text
        assert len(text) == len(sentence.text) and all(piece in text for piece in pieces)
        seen.add(text)
    assert len(seen) == 6  # every order of three phrases


def test_shuffle_keeps_commas_and_the_relation() -> None:
    sentence = Sentence("a cat left of a car, a lake.", "left of", "relationship")
    texts = {shuffle(sentence, order(seed)).text for seed in range(30)}
    assert "a lake, left of a car, a cat" in texts
    assert all(sorted(t.split(", ")) == ["a cat", "a lake", "left of a car"] for t in texts)


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("a photo of a fox kissing a whale", "kissing", ("a photo of a fox", "a whale")),
        ("on red, an owl is above a car.", "above", ("on red, an owl", "a car")),
        ("two people hugging in the snow", "hugging", ("two people",)),
        ("kissing", "kissing", ()),
    ],
)
def test_sides(text: str, word: str, expected: tuple[str, ...]) -> None:
    assert sides(Sentence(text, word, "relationship")) == expected


# --- shipped lists --------------------------------------------------------------------------------


def test_find() -> None:
    def name(query: str) -> str:
        concept = shipped.find(query)
        assert concept is not None
        return concept.name

    assert [name(q) for q in ("Tigers", "hugging", "van gogh", "Vincent van Gogh")] == [
        *("tiger", "hug", "Van Gogh", "Van Gogh")
    ]
    assert [name(q) for q in ("Apple", "apple", "naked", "nike")] == [
        *("Apple", "apple", "nude", "Nike")
    ]
    assert shipped.find("quaternion") is None


def all_shipped() -> list[Concept]:
    found = [shipped.find(name) for names in shipped.lists().values() for name in names]
    return [concept for concept in found if concept is not None]


def test_every_shipped_name_is_found_as_itself() -> None:
    names = [name for names in shipped.lists().values() for name in names]
    assert [concept.name for concept in all_shipped()] == names
    assert len(shipped.pool("entity")) > 300
    assert {"artists", "public_figures", "brands", "explicit"} <= shipped.lists().keys()


def test_shipped_concepts_are_whole() -> None:
    for concept in all_shipped():
        bands = concept.irrelevant
        sizes = [len(band) for band in (bands.none, bands.far, bands.mid, bands.near)]
        assert min(sizes) >= 2 and max(sizes) <= 6, concept
        value = ConceptSet((concept,)).to_json()
        assert ConceptSet.from_json(value).concepts == (concept,)


@pytest.mark.parametrize("list_name", sorted(shipped.lists()))
def test_shipped_words_fit_the_sentences(list_name: str) -> None:
    for name in shipped.lists()[list_name][::7]:
        concept = shipped.find(name)
        assert concept is not None
        for sentence in build(concept, 4, order()):
            for word in (*concept.synonyms, *concept.irrelevant_words()):
                text = replace(sentence, word).text
                assert word_spans(text, word), (sentence, word)
                assert " a a " not in text and " an an " not in text


def test_bands_of_a_shipped_thing_are_ordered_by_kinship() -> None:
    tiger = shipped.find("tiger")
    assert tiger is not None
    assert {"lion", "cat", "leopard"} <= set(tiger.irrelevant.near)
    animals = {c.name for c in shipped.pool("entity")[:80]}
    assert set(tiger.irrelevant.mid) <= animals
    assert not set(tiger.irrelevant.none) & animals


# --- words from anywhere --------------------------------------------------------------------------


def test_lists_come_before_wordnet_and_give_as_many_words_as_asked() -> None:
    concept, origin = find_concept("Van Gogh", per_band=2)
    assert origin == "lists"
    assert concept.kind == "abstraction"
    assert all(len(getattr(concept.irrelevant, band)) <= 2 for band in BANDS)


def test_the_users_words_win_over_those_found() -> None:
    found = Concept("tiger", irrelevant=Bands(none=("car",), mid=("rose", "Lion"), near=("cat",)))
    edited = with_words(found, ["big cat"], {"near": ["lion", "puma"]}, ["a tiger in snow"])
    assert edited.synonyms == ("big cat",)
    assert edited.irrelevant == Bands(none=("car",), mid=("rose",), near=("lion", "puma"))
    assert edited.sentences == ("a tiger in snow",)
    assert with_words(found) == found


def test_the_user_can_want_no_words() -> None:
    found = Concept("tiger", synonyms=("big cat",), irrelevant=Bands(none=("car",), near=("lion",)))
    edited = with_words(found, (), {"near": (), "mid": None})
    assert edited.synonyms == () and edited.irrelevant == Bands(none=("car",))


def test_a_concept_found_by_a_synonym_takes_the_users_own_words() -> None:
    found, _ = find_concept("auto")
    edited = with_words(found, ["Car", "auto"], sentences=["an auto parked in a street"])
    assert edited.name == "car" and edited.synonyms == ("auto",)
    assert [line.text for line in build(edited, 1, order())] == ["a car parked in a street"]


def test_a_concept_is_described_line_by_line() -> None:
    text = describe(Concept("tiger", sense="tiger.n.02", irrelevant=Bands(near=("cat", "lion"))))
    assert text[0] == "tiger (entity, tiger.n.02)"
    assert text[1].split() == ["synonyms", "-"]
    assert text[-1].split() == ["near", "cat,", "lion"]
