"""Senses, synonyms and bands from WordNet; needs one (apt-get install wordnet-base, or NLTK's)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from erase_core.concepts.find import find_concept
from erase_core.concepts.sources import lists as shipped
from erase_core.concepts.sources import wordnet
from erase_core.errors import EraseError


@pytest.fixture(scope="module")
def _wordnet() -> None:
    try:
        wordnet._wordnet()
    except EraseError as error:
        pytest.skip(str(error))


needs_wordnet = pytest.mark.usefixtures("_wordnet")


def score(a: str, b: str) -> float:
    """Wu-Palmer from its definition: 2 depth(common) / (depth(a) + depth(b)), by hypernym paths."""
    best = 0.0
    for p in wordnet._synset(a).hypernym_paths():
        for q in wordnet._synset(b).hypernym_paths():
            common = max((i + 1 for i, (x, y) in enumerate(zip(p, q, strict=False)) if x == y))
            best = max(best, 2 * common / (len(p) + len(q)))
    return best


@needs_wordnet
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


@needs_wordnet
def test_synonyms_are_of_one_sense_and_without_the_word() -> None:
    assert wordnet.synonyms("tiger", "tiger.n.02") == ["Panthera tigris"]
    assert wordnet.synonyms("tigers", "tiger.n.01") == []
    assert wordnet.synonyms("car", "car.n.01") == ["auto", "automobile", "machine", "motorcar"]
    assert "railcar" in wordnet.synonyms("car", "car.n.02")


@needs_wordnet
def test_unknown_sense_is_an_error() -> None:
    for name in ("tiger.n.77", "tiger", "nosuchword.n.01"):
        with pytest.raises(EraseError, match="no sense"):
            wordnet.synonyms("tiger", name)


@needs_wordnet
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


@needs_wordnet
@pytest.mark.parametrize(("word", "sense"), [("tiger", "tiger.n.02"), ("car", "car.n.01")])
def test_near_words_are_neither_above_nor_below(word: str, sense: str) -> None:
    near = wordnet.irrelevant(word, sense, 30).near
    target = wordnet._synset(sense)
    above = {s for path in target.hypernym_paths() for s in path}
    names = {name.replace("_", " ") for s in above for name in s.lemma_names()} - {"cat"}
    assert not names & set(near)
    assert not {"ambulance", "cab", "jeep", "Bengal tiger", "tigress"} & set(near)
    assert not any(word in name.split() for name in near)


@needs_wordnet
def test_seed_decides() -> None:
    def draw(seed: int) -> tuple[str, ...]:
        return wordnet.irrelevant("tiger", "tiger.n.02", 6, seed).words()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@needs_wordnet
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


@needs_wordnet
def test_a_meaning_belongs_to_its_word_and_changes_no_kind() -> None:
    with pytest.raises(EraseError, match='"tiger.n.02" is no meaning of "car"'):
        wordnet.concept_from_wordnet("car", "entity", "tiger.n.02")
    assert wordnet.concept_from_wordnet("Cars", "entity", "car.n.01").sense == "car.n.01"
    nude, origin = find_concept("nude", None, "bare.s.01")
    assert (nude.kind, origin) == ("abstraction", "WordNet")


@needs_wordnet
def test_shipped_groups_hold_no_hypernym_of_their_own() -> None:
    meanings = {name: synset for name, synset in wordnet._pool("entity") if synset}
    for concept in shipped.pool("entity"):
        family = wordnet._family(meanings[concept.name])
        related = [n for n in concept.irrelevant.near if meanings[n] in family]
        assert not related, (concept.name, related)


@needs_wordnet
def test_shipped_senses_exist() -> None:
    for concept in shipped.pool("entity"):
        if concept.sense:
            names = [name.lower() for name in wordnet._synset(concept.sense).lemma_names()]
            assert concept.name in names, concept


@needs_wordnet
def test_nltk_data_folder_is_used_first(tmp_path: Path) -> None:
    """A WordNet laid where NLTK looks for it, `lexnames` included, gives the same words."""
    system = next((f for f in wordnet._system_folders() if (f / "data.noun").is_file()), None)
    if system is None:
        pytest.skip("no WordNet outside NLTK's folders to copy from")
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for file in system.iterdir():
        if file.name not in ("lexnames", "index.sense"):
            (folder / file.name).write_bytes(file.read_bytes())
    lines = [f"{i:02d}\t{name}\t1" for i, name in enumerate(wordnet.LEXNAMES.split())]
    (folder / "lexnames").write_text("\n".join(lines) + "\n")
    index = system / "index.sense"
    (folder / "index.sense").write_bytes(index.read_bytes() if index.is_file() else b"")
    code = (
        "import json; from erase_core.concepts import wordnet as w\n"
        "bands = w.irrelevant('tiger', 'tiger.n.02', 3, 1)\n"
        "print(json.dumps([type(w._wordnet()).__name__, bands.words()]))"
    )
    environment = {**os.environ, "NLTK_DATA": str(tmp_path), "WNSEARCHDIR": str(tmp_path)}
    root = Path(wordnet.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reader, words = json.loads(done.stdout)
    assert reader != "Reader"
    assert tuple(words) == wordnet.irrelevant("tiger", "tiger.n.02", 3, 1).words()


def test_offline_message_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    asked: list[str] = []

    def download(name: str, **options: object) -> bool:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr(wordnet, "_from_nltk", lambda _: None)
    monkeypatch.setattr(wordnet, "_from_system", lambda _: None)
    monkeypatch.setattr(nltk, "download", download)
    wordnet._wordnet.cache_clear()
    try:
        with pytest.raises(EraseError, match="by hand") as caught:
            wordnet.senses("tiger")
        assert asked == ["wordnet"]
        assert str(caught.value).count(".") == 1 and "\n" not in str(caught.value)
    finally:
        wordnet._wordnet.cache_clear()


def test_whether_wordnet_is_there_is_known_without_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import nltk

    monkeypatch.setattr(wordnet, "_from_nltk", lambda _: None)
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("it went online"))
    monkeypatch.setattr(wordnet, "_system_folders", lambda: iter([tmp_path]))
    assert not wordnet.installed()
    (tmp_path / "data.noun").touch()
    assert wordnet.installed()


def test_lexnames_are_the_45_of_wordnet_3() -> None:
    names = wordnet.LEXNAMES.split()
    assert len(names) == 45
    places = {"adj.all": 0, "noun.animal": 5, "noun.person": 18, "verb.contact": 35, "adj.ppl": 44}
    assert {name: names.index(name) for name in places} == places
