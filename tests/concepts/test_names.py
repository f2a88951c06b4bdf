"""Names as people type them find what they mean."""

from __future__ import annotations

import pytest

from erase_core.concepts.find import find_concept
from erase_core.concepts.names import bare, match, plain, suggestion
from erase_core.concepts.spans import word_spans
from erase_core.errors import EraseError
from erase_core.miniatures.miniflux.concepts import concept

KNOWN = {"tiger": "tiger", "panthera tigris": "tiger", "left of": "left of", "Apple": "brand"}


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("tiger 🐯", "tiger"),
        ("⛵ sailboat", "sailboat"),
        ("  hot\t dog\n", "hot dog"),
        ("ｔｉｇｅｒ", "tiger"),  # full width
        ("ti\u200bger", "tiger"),  # with a blank of no width
        ("❤️", ""),
        ("👩‍🚀", ""),
        ("İstanbul", "İstanbul"),
        ("老虎", "老虎"),
        ("C-3PO & R2-D2", "C-3PO & R2-D2"),
    ],
)
def test_what_nobody_sees_is_left_out(typed: str, seen: str) -> None:
    assert plain(typed) == seen


@pytest.mark.parametrize("typed", ["tiger", "Tiger", "TIGERS", "a tiger", "The Tigers", "🐯 tiger"])
def test_case_plural_article_and_emoji_do_not_matter(typed: str) -> None:
    assert match(typed, KNOWN) == "tiger"
    assert concept(typed) == concept("tiger")
    assert find_concept(typed)[0].name == "tiger"


def test_synonyms_will_do_and_exact_spelling_comes_first() -> None:
    assert match("Panthera tigris", KNOWN) == "tiger"
    assert match("Apple", KNOWN) == "brand"
    assert match("the", KNOWN) is None  # an article alone is a name
    assert concept("a kitty") == concept("cat") and concept("hugs") == concept("hugging")


def test_an_article_alone_stays() -> None:
    assert [bare(name) for name in ("a", "The Beatles", "theatre")] == ["a", "Beatles", "theatre"]


def test_what_is_near_is_told() -> None:
    assert suggestion("tigre", KNOWN) == ' Did you mean "tiger"?'
    assert suggestion("spaceship", KNOWN) == ""
    with pytest.raises(EraseError, match='does not know "tigre". Did you mean "tiger"') as told:
        concept("tigre")
    assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    ("prompt", "word", "seen"),
    [
        ("a photo of İstanbul at night", "İstanbul", "İstanbul"),
        ("a photo of istanbul", "İstanbul", "istanbul"),
        ("a ｔｉｇｅｒ in snow", "tiger", "ｔｉｇｅｒ"),
        ("two ti\u200bgers", "tiger", "ti\u200bgers"),
        ("STRASSE in Berlin", "straße", "STRASSE"),
        ("a cafe\u0301 in Paris", "café", "cafe\u0301"),
        ("一只老虎在草地上", "老虎", "老虎"),
        ("トラの写真", "トラ", "トラ"),
        ("호랑이가 있다", "호랑이", "호랑이"),
    ],
)
def test_a_word_is_found_however_it_is_written(prompt: str, word: str, seen: str) -> None:
    ((start, end),) = word_spans(prompt, word)
    assert prompt[start:end] == seen


def test_borders_of_words_hold_in_other_scripts_that_have_them() -> None:
    assert word_spans("Löwenzahn", "Löwe") == [] and word_spans("лисичка", "лис") == []
    assert word_spans("naïve", "naive") == []  # an accent is another letter
