"""What is to be erased is never kept, and WordNet is there on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from erase_core.cli.main import main
from erase_core.concepts.find import find_concept, with_words
from erase_core.concepts.sets import BANDS, Bands, Concept, ConceptSet, named_in
from erase_core.concepts.sources import database
from erase_core.concepts.sources.llm import parse
from erase_core.concepts.spans import Words
from erase_core.errors import EraseError
from erase_core.methods.eraseanything.settings import TrainSettings
from erase_core.methods.eraseanything.trainer import _wanted
from erase_core.training.prompts import plan_prompts

ROOT = Path(__file__).parents[2]
CAT = ["cats", "Cat", "cat's", "cat’s", "black cat", "black_cat", "a cat in a hat", "kitties"]


def near(*words: str) -> Bands:
    return Bands(none=("piano",), far=("rose",), mid=("horse",), near=words)


# --- kept words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", CAT)
@pytest.mark.parametrize("band", BANDS)
def test_what_is_the_concept_is_not_kept(tmp_path: Path, word: str, band: str) -> None:
    with pytest.raises(EraseError, match="to be erased; remove it there") as caught:
        Concept("cat", irrelevant=Bands(**{band: (word,)}))
    assert f'irrelevant lists "{word}"' in str(caught.value)
    path = tmp_path / "cat.json"
    concept = {"name": "cat", "irrelevant": {band: [word]}}
    path.write_text(json.dumps({"version": 1, "concepts": [concept]}), encoding="utf-8")
    with pytest.raises(EraseError, match=r"cat\.json: concepts\[0\].*to be erased"):
        ConceptSet.load(path)


@pytest.mark.parametrize(
    ("concept", "word"),
    [
        (Concept("cats"), "cat"),
        (Concept("moggy", synonyms=("alley cat",)), "alley cats"),
        (Concept("hug", "relationship"), "hugging"),
        (Concept("holding hands", "relationship"), "hold hands"),
        (Concept("left of", "relationship"), "to the left of"),
        (Concept("Van Gogh", "abstraction"), "the style of Vincent van Gogh"),
        (Concept("car"), "autos"),
        (Concept("tiger", sense="tiger.n.02"), "Panthera tigris"),
    ],
)
def test_inflections_synonyms_and_phrases_are_known(concept: Concept, word: str) -> None:
    with pytest.raises(EraseError, match=f'"{word}", which .*to be erased'):
        Concept(concept.name, concept.kind, concept.sense, concept.synonyms, near(word))


def test_another_word_is_kept() -> None:
    kept = ("catalogue", "caterpillar", "dog", "big")
    assert Concept("cat", irrelevant=near(*kept)).irrelevant.near == kept
    assert Concept("hot dog", irrelevant=near("dog")).irrelevant.near == ("dog",)
    assert Concept("car", sense="car.n.02", irrelevant=near("auto")).irrelevant.near == ("auto",)


def test_no_concept_of_a_set_is_kept_by_another() -> None:
    dog, cat = Concept("dog", irrelevant=near("black cats", "wolf")), Concept("cat")
    with pytest.raises(EraseError, match='lists "black cats", which names "cat", which another'):
        ConceptSet((dog, cat))
    merged = ConceptSet.together((dog, cat))  # what is found for one gives way to the other
    assert merged.concepts[0].irrelevant.near == ("wolf",)


def test_words_that_were_found_leave_quietly() -> None:
    found = Concept("tiger", irrelevant=near("lion", "snow leopard", "cats"))
    edited = with_words(found, synonyms=["leopard", "cat"])
    assert edited.irrelevant.near == ("lion",)
    with pytest.raises(EraseError, match='"tigers", which names "tiger"'):
        with_words(found, irrelevant={"near": ["tigers"]})
    told = {"synonyms": ["kitty"], "none": ["car"], "far": ["rose"], "mid": ["horse"]}
    reply = json.dumps(told | {"near": ["black cat", "kitties", "lion"]})
    assert parse(reply, "cat", "entity").irrelevant.near == ("lion",)


@pytest.mark.parametrize("name", ["leopard", "pig", "cat", "kitchen", "watermark"])
def test_the_words_found_for_a_concept_never_name_it(name: str) -> None:
    concept, _ = find_concept(name)
    assert concept.irrelevant.none and concept.irrelevant.near
    assert not [w for w in concept.irrelevant_words() if named_in(w, Words(concept.names()))]


# --- the anchor -----------------------------------------------------------------------------------


def plan(**settings: Any) -> Any:
    concept = Concept("cat", irrelevant=near("lion"), sentences=("a cat on a mat",))
    told = TrainSettings(null="replace", erase_rollouts=2, keep_rollouts=2, **settings)
    return plan_prompts(ConceptSet((concept,)), _wanted(told), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("anchor", CAT)
def test_the_anchor_is_not_the_concept(anchor: str) -> None:
    with pytest.raises(EraseError, match="which is to be erased; choose another word"):
        plan(anchor=anchor)


def test_no_null_prompt_names_the_concept() -> None:
    for settings in ({}, {"anchor": "big dog"}):
        nulls = {prompt.null for prompt in plan(**settings).erase}
        assert nulls and not [null for null in nulls if named_in(null, Words(("cat", "kitty")))]


BLANK = {"anchor": " ", "targets": " ", "null": "", "rsc": " "}


@pytest.mark.parametrize(
    "arguments",
    [["--anchor", "cat"], *(["--set", f"{name}={blank}"] for name, blank in BLANK.items())],
)
def test_a_setting_that_cannot_be_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    out = tmp_path / "cat.safetensors"
    assert main(["train", "--concept", "cat", "--out", str(out), *arguments]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith(".") and "Unexpected" not in said
    assert not out.exists()


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_flag_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "cat.safetensors"
    with pytest.raises(SystemExit) as left:
        main(["train", "--concept", "cat", "--out", str(out), f"--{name}", BLANK[name]])
    assert left.value.code == 2 and f"--{name} is blank" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "settings",
    [
        *({"anchor": blank} for blank in (" ", "\n", "\t ", 3, None)),
        *({"targets": targets} for targets in ((), ("",), (" ",), "add_q_proj", (3,), ([],), None)),
        *({"attention_blocks": blocks} for blocks in ((), ("",), (True,), (1.5,), "1", 1)),
        *({name: " "} for name in ("null", "rsc", "rollout_prompt")),
        *({name: []} for name in ("null", "rsc", "rollout_prompt", "anchor", "targets")),
    ],
)
def test_blank_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(EraseError, match=rf"setting {next(iter(settings))} .*\.$"):
        TrainSettings.from_dict(settings)


# --- WordNet --------------------------------------------------------------------------------------


SENSES = "from erase_core.concepts.sources.wordnet import senses; print(senses('kitchen')[0].name)"


def look_up(home: Path, **more: str) -> subprocess.Popen[str]:
    """A process with that home, and no network, that asks WordNet."""
    dead = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    told = {"HOME": str(home), "LOCALAPPDATA": str(home), "XDG_CACHE_HOME": "", **dead}
    environment = {**os.environ, **told, "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-c", SENSES]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_fresh_machine_without_network_has_words(tmp_path: Path) -> None:
    """Two processes at once unpack into one cache; files with half their bytes are written anew."""
    both = [look_up(tmp_path), look_up(tmp_path)]
    assert [process.communicate()[0] for process in both] == ["kitchen.n.01\n"] * 2
    folders = [path.parent for path in tmp_path.rglob("data.noun")]
    assert len(folders) == 1
    sizes = {path.name: path.stat().st_size for path in folders[0].iterdir()}
    assert sizes == database.SIZES


def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    folder = database.unpack(tmp_path / "cache")
    whole = (folder / "data.verb").read_bytes()
    (folder / "data.verb").write_bytes(whole[:1000])
    (folder / "noun.exc").unlink()
    assert (database.unpack(folder) / "data.verb").read_bytes() == whole
    assert (folder / "noun.exc").stat().st_size == database.SIZES["noun.exc"]


def test_a_home_that_takes_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, in which no folder can be made", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    process = look_up(tmp_path / "home", TMPDIR=str(tmp_path / "temporary"))
    assert process.communicate()[0] == "kitchen.n.01\n"
    assert not list((tmp_path / "temporary").iterdir())  # gone with the process


def test_a_damaged_archive_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = database.ARCHIVE.read_bytes()
    for content in (whole[:100_000], b"", whole[:50_000] + b"\0" * 1000 + whole[51_000:]):
        (tmp_path / "broken.tar.xz").write_bytes(content)
        monkeypatch.setattr(database, "ARCHIVE", tmp_path / "broken.tar.xz")
        with pytest.raises(EraseError, match="is damaged .*; install the package again"):
            database.unpack(tmp_path / "cache")
