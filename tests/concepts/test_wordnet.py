"""Senses, synonyms and bands from the shipped WordNet."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase_core.concepts.find import find_concept
from erase_core.concepts.sources import database, wordnet
from erase_core.concepts.sources import lists as shipped
from erase_core.errors import EraseError
from erase_core.files import sha256


def score(a: str, b: str) -> float:
    """Wu-Palmer from its definition: 2 depth(common) / (depth(a) + depth(b)), by hypernym paths."""
    best = 0.0
    for p in wordnet._synset(a).hypernym_paths():
        for q in wordnet._synset(b).hypernym_paths():
            common = max((i + 1 for i, (x, y) in enumerate(zip(p, q, strict=False)) if x == y))
            best = max(best, 2 * common / (len(p) + len(q)))
    return best


def test_the_likeliest_sense_comes_first() -> None:
    first = {word: wordnet.senses(word)[0] for word in ("tiger", "rose", "car", "turtle", "Kings")}
    assert first["tiger"].name == "tiger.n.02" and "feline" in first["tiger"].definition
    assert first["rose"].name == "rose.n.01" and "shrub" in first["rose"].definition
    assert first["car"].name == "car.n.01" and "Pullman" not in first["car"].definition
    assert "turtleneck" not in first["turtle"].name and "reptile" in first["turtle"].definition
    assert first["Kings"].name == "king.n.01"
    assert first["car"].examples == ("he needs a car to get to work",)
    assert wordnet.senses("hug", "relationship")[0].name == "embrace.v.02"
    assert wordnet.senses("qwzx") == []


def test_synonyms_are_of_one_sense_and_without_the_word() -> None:
    assert wordnet.synonyms("tiger", "tiger.n.02") == ["Panthera tigris"]
    assert wordnet.synonyms("tigers", "tiger.n.01") == []
    assert wordnet.synonyms("car", "car.n.01") == ["auto", "automobile", "machine", "motorcar"]
    assert "railcar" in wordnet.synonyms("car", "car.n.02")


def test_unknown_sense_is_an_error() -> None:
    for name in ("tiger.n.77", "tiger", "nosuchword.n.01"):
        with pytest.raises(EraseError, match="no sense"):
            wordnet.synonyms("tiger", name)


def test_bands_keep_their_distance() -> None:
    bands = wordnet.irrelevant("tiger", "tiger.n.02", 5, seed=3)
    meanings = {name: synset for name, synset in wordnet._pool("entity") if synset}
    limits = {"none": (0, 0.2), "far": (0.2, 0.4), "mid": (0.4, 0.65)}
    for band, (low, high) in limits.items():
        words = getattr(bands, band)
        assert len(words) == 5
        for word in words:
            assert low <= score("tiger.n.02", meanings[word].name()) <= high, (band, word)
    assert {"lion", "leopard", "jaguar", "cheetah", "cat"} >= set(bands.near[:4])
    assert all(score("tiger.n.02", meanings[word].name()) >= 0.8 for word in bands.near)
    assert len(set(bands.words())) == 20


@pytest.mark.parametrize(("word", "sense"), [("tiger", "tiger.n.02"), ("car", "car.n.01")])
def test_near_words_are_neither_above_nor_below(word: str, sense: str) -> None:
    near = wordnet.irrelevant(word, sense, 30).near
    target = wordnet._synset(sense)
    above = {s for path in target.hypernym_paths() for s in path}
    names = {name.replace("_", " ") for s in above for name in s.lemma_names()} - {"cat"}
    assert not names & set(near)
    assert not {"ambulance", "cab", "jeep", "Bengal tiger", "tigress"} & set(near)
    assert not any(word in name.split() for name in near)


def test_seed_decides() -> None:
    def draw(seed: int) -> tuple[str, ...]:
        return wordnet.irrelevant("tiger", "tiger.n.02", 6, seed).words()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_concept_from_wordnet() -> None:
    concept = wordnet.concept_from_wordnet("tiger", "entity", per_band=2)
    assert (concept.name, concept.kind, concept.sense) == ("tiger", "entity", "tiger.n.02")
    assert concept.synonyms == ("Panthera tigris",)
    assert len(concept.irrelevant_words()) == 8
    person = wordnet.concept_from_wordnet("tiger", "entity", sense="tiger.n.01")
    assert person.synonyms == () and "lion" not in person.irrelevant.near
    red = wordnet.concept_from_wordnet("red", "abstraction")
    assert "scarlet" in red.synonyms and {"blue", "green"} <= set(red.irrelevant.near)
    hug = wordnet.concept_from_wordnet("hug", "relationship")
    assert "embrace" in hug.synonyms and "kiss" in hug.irrelevant_words()
    for kind in ("entity", "relationship"):
        with pytest.raises(EraseError, match='does not know "left of" as'):
            wordnet.concept_from_wordnet("left of", kind)  # type: ignore[arg-type]


def test_a_meaning_belongs_to_its_word_and_changes_no_kind() -> None:
    with pytest.raises(EraseError, match='"tiger.n.02" is no meaning of "car"'):
        wordnet.concept_from_wordnet("car", "entity", "tiger.n.02")
    assert wordnet.concept_from_wordnet("Cars", "entity", "car.n.01").sense == "car.n.01"
    nude, origin = find_concept("nude", None, "bare.s.01")
    assert (nude.kind, origin) == ("abstraction", "WordNet")


def test_shipped_groups_hold_no_hypernym_of_their_own() -> None:
    meanings = {name: synset for name, synset in wordnet._pool("entity") if synset}
    for concept in shipped.pool("entity"):
        family = wordnet._family(meanings[concept.name])
        related = [n for n in concept.irrelevant.near if meanings[n] in family]
        assert not related, (concept.name, related)


def test_shipped_senses_exist() -> None:
    for concept in shipped.pool("entity"):
        if concept.sense:
            names = [name.lower() for name in wordnet._synset(concept.sense).lemma_names()]
            assert concept.name in names, concept


def test_lexnames_are_the_45_of_wordnet_3() -> None:
    names = wordnet._wordnet()._lexnames
    assert len(names) == 45
    places = {"adj.all": 0, "noun.animal": 5, "noun.person": 18, "verb.contact": 35, "adj.ppl": 44}
    assert {name: names.index(name) for name in places} == places


def test_the_archive_holds_the_files_of_wordnet_3_whole(tmp_path: Path) -> None:
    """The checksums are those of the files in Debian's wordnet-base 3.0."""
    folder = database.unpack(tmp_path)
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == database.SIZES
    sums = {
        "data.noun": "fea17d2f96566113",
        "index.noun": "a490d99d93d017bf",
        "cntlist.rev": "a198580b8f705fa0",
    }
    assert {name: sha256(folder / name)[:16] for name in sums} == sums
    assert (database.ARCHIVE.parent / "WORDNET-LICENSE.txt").read_text().count("Princeton") == 5
