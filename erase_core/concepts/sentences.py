"""Sentences about a concept: built from templates, another word put in, taken out, shuffled.

How varied the sentences are decides how far an erasure reaches. So the templates vary the number,
the company, the scene and the style (Algorithm 1, step 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as copy
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ..errors import EraseError
from ..files import read_json
from .grammar import (
    AUXILIARIES,
    COLOURS,
    DETERMINERS,
    MANNERS,
    MANY,
    NUMBERS,
    SEASONS,
    TIMES,
    is_boundary,
    join,
    split,
)
from .inflect import (
    SPATIAL,
    article,
    articles,
    form_of,
    inflect,
    is_name,
    is_preposition,
    is_verb,
    plural,
)
from .removal import remove
from .sets import Concept, Kind
from .spans import word_spans

T = TypeVar("T")
Order = Callable[[int], list[int]]  # the numbers below n in a random order


@dataclass(frozen=True)
class Sentence:
    """A prompt and the word in it that it is about, as `word_spans` finds it."""

    text: str
    word: str
    kind: Kind = "entity"


def build(concept: Concept, count: int, order: Order) -> list[Sentence]:
    """`count` sentences that contain the concept, varied, the same for the same ``order``.

    They are the concept's own, where it has any, else from the templates of its kind. In its own
    the name replaces a synonym; EraseError for one that has neither. All of them are used before
    any is used twice.
    """
    own = tuple(_about(concept, text) for text in concept.sentences)
    texts = own or tuple(_templates()["templates"][group(concept)])
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += _draw(texts, len(texts), order)
    lines = drawn[:count] if own else [_fill(text, concept, order) for text in drawn[:count]]
    return [Sentence(line, concept.name, concept.kind) for line in lines]


def _about(concept: Concept, text: str) -> str:
    """A sentence of the user's with the concept's name in it."""
    word = next((name for name in concept.erased() if word_spans(text, name)), None)
    if word is None:
        raise EraseError(
            f'concept "{concept.name}": the sentence "{text}" does not contain it; '
            "write the name into the sentence or remove the sentence."
        )
    sentence = Sentence(text, word, concept.kind)
    return text if word == concept.name else replace(sentence, concept.name).text


def group(concept: Concept) -> str:
    """Which shipped templates fit: those of countable things, names, colours, places, ..."""
    name = concept.name
    if concept.kind == "entity":
        return "name" if is_name(name) else "thing"
    if concept.kind == "relationship":
        if is_preposition(name) or name.split()[-1] in SPATIAL:
            return "place"
        return "together" if " " in name else "action"
    for known, words in (("colour", COLOURS), ("number", NUMBERS), ("time", TIMES)):
        if name.lower() in words:
            return known
    return "artist" if name[:1].isupper() else "style"


@lru_cache(maxsize=1)
def _templates() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = read_json(Path(__file__).parent / "templates.json")
    return found


def _draw(items: tuple[T, ...] | list[T], count: int, order: Order) -> list[T]:
    """`count` different items in random order."""
    return [items[i] for i in order(len(items))[:count]]


def _fill(template: str, concept: Concept, order: Order) -> str:
    """A template with its slots filled; no filler names what is to be erased."""

    def free(slot: str) -> list[str]:
        words = _templates()["fillers"][slot]
        return [w for w in words if not any(word_spans(w, erased) for erased in concept.erased())]

    thing, other = _draw(free("things"), 2, order)
    slots = {slot: _draw(free(slot), 1, order)[0] for slot in ("scenes", "colours", "numbers")}
    name = concept.name
    forms = {"s": inflect(name, "s"), "ing": inflect(name, "ing")}
    forms["x"] = forms["ing"] if concept.kind == "relationship" else name
    text = template.format(
        when=f"{'in' if name.lower() in SEASONS else 'at'} {name}",
        a=f"{article(name)} {name}",
        thing=f"{article(thing)} {thing}",
        other=f"{article(other)} {other}",
        bare=thing,
        things=plural(thing),
        scene=slots["scenes"],
        colour=slots["colours"],
        number=slots["numbers"],
        **forms,
    )
    return articles(text)


def replace(sentence: Sentence, new_word: str) -> Sentence:
    """The same sentence about `new_word`: every occurrence, inflected alike, articles set right."""
    text = sentence.text
    for start, end in reversed(word_spans(text, sentence.word)):
        before, after = text[:start], text[end:]
        new = _carry(text[start:end], before, sentence, new_word)
        if sentence.kind == "entity":
            before = _determine(before, after, sentence.word, new_word, new)
        cut = before.rstrip().rfind(" ") + 1  # the last word before, perhaps an article
        text = before[:cut] + articles(before[cut:] + new) + after
    return copy(sentence, text=text, word=new_word)


def _carry(surface: str, before: str, sentence: Sentence, new_word: str) -> str:
    """`new_word` with the inflection, the possessive and the capital of `surface`."""
    owner = surface.lower() != sentence.word.lower()  # not the 's of a name like Levi's
    bare = re.sub(r"['’]s$", "", surface) if owner else surface
    form = form_of(bare, sentence.word)
    counted = before.split()[-1:] and before.split()[-1].lower() in MANY
    if sentence.kind == "entity" and form == "base" and counted:
        form = "s"
    if sentence.kind == "relationship" and is_preposition(sentence.word) and is_verb(new_word):
        form = "ing"
    new = inflect(new_word, form) + surface[len(bare) :]
    capital = surface[0].isupper() and not sentence.word[0].isupper()
    return new[0].upper() + new[1:] if capital else new


def _determine(before: str, after: str, word: str, new_word: str, new: str) -> str:
    """Text before an entity with its article dropped for a name, or added for a thing."""
    ending = re.search(r"\b(an?) $", before, re.IGNORECASE)
    following = split(after)[:1]
    heads = not following or is_boundary(following[0].lower())
    if is_name(new_word) and ending and heads:
        return before[: ending.start(1)]
    last = split(before)[-1:]
    bare = not last or is_boundary(last[0].lower())
    if is_name(word) and not is_name(new_word) and bare and heads and plural(new_word) != new:
        return f"{before}{article(new)} " if before.strip() else f"{article(new).capitalize()} "
    return before


def without(sentence: Sentence) -> str:
    """The sentence without its concept (see `removal.remove`); empty when nothing else is left."""
    return remove(sentence.text, sentence.word, sentence.kind)


def sides(sentence: Sentence) -> tuple[str, ...]:
    """What stands before and after a relationship, each a prompt of its own.

    "a photo of a fox kissing a whale in the snow": "a photo of a fox", "a whale in the snow". What
    names nothing ("in the snow") is left out.
    """
    start, end = word_spans(sentence.text, sentence.word)[0]
    before = split(sentence.text[:start].rstrip(" ,"))
    while before and before[-1].lower() in AUXILIARIES:
        before.pop()
    after = split(sentence.text[end:].rstrip(" ."))
    after = [] if not after or is_boundary(after[0].lower()) else after
    return tuple(join(part) for part in (before, after) if part)


def shuffle(sentence: Sentence, order: Order) -> Sentence:
    """The sentence with its phrases in random order, the concept's words kept together.

    Phrases end at commas and before prepositions: "a photo / of a tiger / in the snow".
    """
    text = sentence.text.rstrip(" .")
    phrases = _phrases(text, word_spans(text, sentence.word))
    glue = ", " if "," in text else " "
    return copy(sentence, text=glue.join(_draw(phrases, len(phrases), order)))


def _phrases(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """The text cut at commas and before prepositions, never inside a span."""
    cuts, content = [0], False
    for match in re.finditer(r",|[^\s,]+", text):
        word, start = match[0].lower(), match.start()
        inside = any(a < start < b for a, b in spans)
        if not inside and (word == "," or (content and word in SPATIAL)):
            cuts.append(start)
            content = False
        content |= word not in SPATIAL | DETERMINERS | MANNERS | {","}
    pieces = [text[a:b].strip(" ,") for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [piece for piece in pieces if piece]
