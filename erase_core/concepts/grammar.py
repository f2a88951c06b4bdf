"""A prompt as words, and the small word classes that tell where a phrase begins and ends."""

from __future__ import annotations

import re
from re import compile as regex

from .inflect import SPATIAL, UNCOUNTABLE, VERBS, articles, lemma
from .spans import word_spans


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBERS = _words("two three four five six seven eight nine ten eleven twelve twenty")
MANY = NUMBERS | _words("many several some few these those both various multiple")
DETERMINERS = MANY | _words(
    "a an the one this that my your his her its our their another each every no any"
)
CONJUNCTIONS = _words("and or but while as")
COLOURS = _words(
    "red orange yellow green blue purple pink brown black white grey gray cyan magenta turquoise "
    "violet golden silver beige crimson teal"
)
TIMES = _words(
    "night day dawn dusk noon midnight sunrise sunset morning evening afternoon twilight winter "
    "summer spring autumn fall christmas halloween"
)
SEASONS = _words("winter summer spring autumn fall morning evening afternoon twilight")
ADJECTIVES = COLOURS | _words(
    "big small large little tiny huge giant tall short long wide round old young new ancient "
    "modern beautiful cute pretty happy sad angry bright dark light pale deep vivid soft hard "
    "wooden furry fluffy wild majestic lonely single whole wet dry cold hot warm snowy sunny "
    "foggy rainy cloudy starry stormy colorful colourful simple plain realistic detailed famous "
    "rich poor clean dirty rusty shiny smiling striped fierce playful friendly calm early late"
)
AUXILIARIES = _words(
    "is are was were be been being has have had does do did can will there who that which it"
)
POSTURES = _words(
    "sitting standing lying placed located positioned resting hanging floating shown seen put set "
    "situated posing walking running sits stands lies sit stand lie"
)
MANNERS = _words(
    "style styles manner fashion colour colours color colors tone tones hue hues technique "
    "aesthetic palette shades shade look art"
)
LINKS = _words(
    "inspired painted drawn coloured colored made done rendered sketched filled shot taken dressed "
    "wearing imitating resembling influenced designed created"
)
GROUPS = _words("group pair pack herd couple family flock bunch crowd row pile set number lot")
NOUNS = UNCOUNTABLE | _words(  # that look like verb forms
    "painting drawing building clothing wing king ring ceiling string thing spring evening morning "
    "herring wedding lettering being pudding swing sting earring shot cut duckling dumpling "
    "sapling viking icing stocking carving engraving etching family butterfly dragonfly "
    "jelly belly lily bully steed tweed breed"
)


_TOKEN = regex(r"\w+(?:['’&./-]\w+)*|[^\w\s]")


def split(text: str) -> list[str]:
    """The words (hyphens, apostrophes and inner dots kept) and punctuation marks of a text."""
    return _TOKEN.findall(text)


def join(tokens: list[str]) -> str:
    """Tokens as text again: spaces between words, a/an by what follows, stray marks dropped."""
    text = articles(" ".join(tokens))
    text = re.sub(r"([(\[“]) +", r"\1", re.sub(r" +([,.;:!?)\]”])", r"\1", text))
    text = re.sub(r"([,;:])(?:[,;:]\s*|\s+[,;:])+", r"\1 ", text)
    return re.sub(r"^[\s,.;:]+|[\s,;:]+$", "", text).strip()


def locate(text: str, word: str) -> tuple[int, int] | None:
    """Token indices (first, end) of the first occurrence of `word`, or None."""
    spans = word_spans(text, word)
    if not spans:
        return None
    places = [match.span() for match in _TOKEN.finditer(text)]
    inside = [i for i, (a, b) in enumerate(places) if max(a, spans[0][0]) < min(b, spans[0][1])]
    return inside[0], inside[-1] + 1


def is_mark(token: str) -> bool:
    """Whether a token is punctuation."""
    return not re.match(r"\w", token)


def is_connector(word: str) -> bool:
    """A preposition or conjunction (lower case)."""
    return word in SPATIAL or word in CONJUNCTIONS


def is_boundary(word: str) -> bool:
    """Whether a noun phrase ends before this lower-case token."""
    return is_mark(word) or is_connector(word) or word in AUXILIARIES


def is_participle(word: str) -> bool:
    """A verb form that follows its noun: hugging, painted, slowly."""
    if word in NOUNS or word in ADJECTIVES:
        return False
    base = lemma(word)
    return (word.endswith(("ing", "ed", "ly")) and len(word) > 4) or base in VERBS - {word}
