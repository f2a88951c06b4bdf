"""A sentence without its concept: the natural null of an abstraction or a relationship.

Rules over word classes, no parser: a prompt that is plain English comes out as plain English, any
other prompt at least comes out without the concept.
"""

from __future__ import annotations

from .grammar import (
    ADJECTIVES,
    AUXILIARIES,
    CONJUNCTIONS,
    DETERMINERS,
    GROUPS,
    LINKS,
    MANNERS,
    MANY,
    POSTURES,
    is_boundary,
    is_connector,
    is_mark,
    is_participle,
    join,
    locate,
    split,
)
from .inflect import SPATIAL, VERBS, lemma, singular
from .sets import Kind
from .spans import word_spans

_SCENE = frozenset({"in", "on", "at", "against", "during", "from", "for"})
_RECIPIENT = frozenset({"to", "with", "between", "of"})


def remove(text: str, word: str, kind: Kind) -> str:
    """`text` without any occurrence of `word`, and without what only stood there for it.

    An entity goes with its noun phrase and the connector that is left dangling; an abstraction as
    the adjective or style phrase that it is; a relationship becomes "and". May be empty.
    """
    cut = {"entity": _entity, "abstraction": _abstraction, "relationship": _relationship}[kind]
    for _ in word_spans(text, word):
        place = locate(text, word)
        if place is None:  # two occurrences shared one phrase
            break
        text = join(cut(split(text), *place))
    return text


def _low(tokens: list[str]) -> list[str]:
    return [token.lower() for token in tokens]


def _entity(tokens: list[str], start: int, end: int) -> list[str]:
    low = _low(tokens)
    verb_end = _verb_end(tokens, start, end)
    possessive = low[end - 1].endswith(("'s", "’s"))
    follows = end < len(low) and not is_boundary(low[end]) and low[end] not in DETERMINERS
    if follows and (possessive or verb_end == end):
        return tokens[:start] + tokens[end:]
    return _bridge(tokens[: _phrase_start(low, start)], tokens[verb_end:])


def _verb_end(tokens: list[str], start: int, end: int) -> int:
    """Where the verb that follows a noun ends: "tiger [is sleeping]", "tigers [run]"."""
    low = _low(tokens)
    first = _phrase_start(low, start)
    if end < len(low) and not is_boundary(low[end]) and low[end] not in DETERMINERS:
        word, many = low[end], singular(tokens[end - 1]) != tokens[end - 1]
        one = low[first] in DETERMINERS - MANY and word.endswith("s") and not word.endswith("ss")
        known = lemma(word) in VERBS and lemma(word) != word
        end += many or one or known
    while end < len(low) and (low[end] in AUXILIARIES or is_participle(low[end])):
        end += 1
    return end


def _phrase_start(low: list[str], start: int) -> int:
    """Where the noun phrase that reaches up to `start` begins: adjectives, number, article."""
    while start > 0:
        word = low[start - 1]
        if word in DETERMINERS or word.isdigit():
            while start > 0 and (low[start - 1] in DETERMINERS or low[start - 1].isdigit()):
                start -= 1
            return start
        if is_boundary(word) or (is_participle(word) and not _adjectival(low, start - 1)):
            return start
        start -= 1
    return start


def _adjectival(low: list[str], place: int) -> bool:
    """Whether a participle stands before its noun: "a sleeping tiger", not "a bear hugging ..."."""
    before = low[place - 1] if place else ""
    return (
        not before or before in DETERMINERS or before in ADJECTIVES or is_boundary(before)
    ) and before not in AUXILIARIES


def _bridge(left: list[str], right: list[str]) -> list[str]:
    """Join what stood left and right of a removed noun phrase, dropping dangling connectors."""
    whole = _strip_end(left)
    dangling = _low(left[len(whole) :])
    first = right[0].lower() if right else ""
    if not whole or not right:
        return _strip_start(whole or right)
    complement = dangling in (["of"], ["with"])
    if first in CONJUNCTIONS:
        joined = dangling and dangling[-1] not in CONJUNCTIONS and not is_mark(dangling[-1])
        return left + right[1:] if joined else whole + right
    if is_mark(first):
        listed = complement and len(right) > 1 and right[1].lower() in DETERMINERS
        return left + right[1:] if listed else whole + right
    if first in SPATIAL and (first in _SCENE or not complement):
        return whole + right
    return left + _strip_start(right)


def _strip_end(tokens: list[str]) -> list[str]:
    """Tokens without the connectors, verbs and group words that end them."""
    low = _low(tokens)
    end = len(low)
    while end:
        word, after = low[end - 1], low[end] if end < len(low) else ""
        if word in GROUPS and after == "of":
            end = _phrase_start(low, end - 1)
        elif is_boundary(word) or is_participle(word) or (word == "the" and is_connector(after)):
            end -= 1
        else:
            break
    return tokens[:end]


def _strip_start(tokens: list[str]) -> list[str]:
    """Tokens without the connectors and verbs that begin them."""
    low = _low(tokens)
    start = 0
    while start < len(low):
        word, after = low[start], low[start + 1] if start + 1 < len(low) else ""
        if not (is_boundary(word) or (word == "the" and is_connector(after))):
            break
        start += 1
    return tokens[start:]


def _abstraction(tokens: list[str], start: int, end: int) -> list[str]:
    low = [*_low(tokens), ""]
    while low[end] in MANNERS:
        end += 1
    before = low[start - 1] if start else ""
    listed = not before or before in DETERMINERS
    if listed and (low[end] == "," or (low[end] in CONJUNCTIONS and low[end + 1] in ADJECTIVES)):
        end += 1
    elif before in CONJUNCTIONS and start > 1 and low[start - 2] in ADJECTIVES:
        start -= 1
    after = low[end]
    verb = is_participle(after) and before not in DETERMINERS
    if after and not is_boundary(after) and after not in DETERMINERS and not verb:
        return tokens[:start] + tokens[end:]
    start = _link_start(low, start)
    return tokens[:start] + (tokens[end:] if start else _strip_start(tokens[end:]))


def _link_start(low: list[str], start: int) -> int:
    """Where the phrase begins that ties an abstraction on: "[in the style of] Van Gogh"."""
    ties = DETERMINERS | MANNERS | LINKS | ADJECTIVES
    while start and (is_boundary(low[start - 1]) or low[start - 1] in ties):
        start -= 1
    return start


def _relationship(tokens: list[str], start: int, end: int) -> list[str]:
    low = _low(tokens)
    noun = start > 0 and low[start - 1] in DETERMINERS and low[start] not in SPATIAL
    follows = end < len(low) and not is_boundary(low[end]) and low[end] not in DETERMINERS
    if noun and follows:  # "two hugging bears"
        return tokens[:start] + tokens[end:]
    left, right = tokens[:start], _partners(tokens[end:])
    if noun:
        left = tokens[: _phrase_start(low, start)]
        if left and left[-1].lower() in _RECIPIENT:  # "a photo of a hug between ..."
            return left + right
    left = _strip_relation(left)
    if not left:
        return _strip_start(right)
    if not right or is_boundary(right[0].lower()):
        return left + right
    return [*left, "and", *right]


def _partners(tokens: list[str]) -> list[str]:
    """What follows a relation, without "each other", adverbs and "to" / "with" / "between"."""
    low = _low(tokens)
    start = 2 if low[:2] in (["each", "other"], ["one", "another"]) else 0
    while start < len(low) and (low[start] in _RECIPIENT or low[start].endswith("ly")):
        start += 1
    return tokens[start:]


def _strip_relation(tokens: list[str]) -> list[str]:
    """Tokens without the "is sitting to the" that led to a relation."""
    low = _low(tokens)
    end = len(low)
    while end:
        word, after = low[end - 1], low[end] if end < len(low) else ""
        led = word == "the" and (end == len(low) or is_connector(after))
        if not (is_boundary(word) or word in POSTURES or is_participle(word) or led):
            break
        end -= 1
    return tokens[:end]
