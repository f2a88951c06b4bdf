"""Our inflections beside those of the package ``inflect``."""

from __future__ import annotations

from inflect import engine

from erase_core.concepts.inflect import article, is_name, plural
from erase_core.concepts.sources.lists import pool

ORACLE = engine()
NOUNS = [concept.name for concept in pool("entity") if not is_name(concept.name)]
# Both are said.
BOTH = {
    "rhinoceros": "rhinoceros",
    "buffalo": "buffalos",
    "flamingo": "flamingos",
    "cactus": "cacti",
    "banjo": "banjos",
    "tornado": "tornados",
}


def test_plurals_of_everyday_things() -> None:
    assert len(NOUNS) > 300
    ours = {noun: plural(noun) for noun in NOUNS}
    assert ours == {noun: ORACLE.plural_noun(noun) for noun in NOUNS} | BOTH


def test_articles_of_everyday_things() -> None:
    assert [article(noun) for noun in NOUNS] == [ORACLE.a(noun).split()[0] for noun in NOUNS]
