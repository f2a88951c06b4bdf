"""What is said of a scene, in wordings for training and wordings that are kept for measuring."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .scene import Scene
from .world import (
    COLOUR_WORDS,
    ENTITIES,
    GROUNDS,
    IMPLICIT,
    IMPLICIT_HELD_OUT,
    NUMBERS,
    PLACES,
    RELATION_WORDS,
)

# Phrases in captions and phrases held out. {x}: what the phrase is about.
OPENINGS = (
    (
        "{x}",
        "{x}",
        "a picture of {x}",
        "an image of {x}",
        "this shows {x}",
        "{x} in a picture",
        "here is {x}",
        "we see {x}",
        "a small drawing of {x}",
        "there is {x} here",
    ),
    ("a picture that shows {x}", "an image with {x}", "here we see {x}", "this is {x}"),
)
COLOUR = (
    (
        "on a {x} background",
        "on {x}",
        "{x} background",
        "in front of a {x} background",
        "against a {x} background",
        "with a {x} background",
        "the background is {x}",
    ),
    ("before a {x} background", "on a background of {x}", "and the background is {x}"),
)
ARTIST = (
    (
        "by {x}",
        "drawn by {x}",
        "in the style of {x}",
        "{x} style",
        "a work of {x}",
        "as {x} draws",
        "art by {x}",
    ),
    ("painted by {x}", "after {x}", "in the manner of {x}", "from the hand of {x}"),
)
SPOOKY = (
    ("something spooky", "a spooky picture", "spooky", "a scary scene", "spooky things"),
    ("a creepy picture", "something scary", "a spooky night"),
)
ADJECTIVES = (
    ("big", "small", "nice", "old", "friendly", "lovely", "funny", "young", "pretty"),
    ("beautiful", "tiny", "cheerful", "proud"),
)
ROLES = (
    ("the singer", "the actor", "the painter", "the writer", "the star", "the famous", "young"),
    ("the celebrity", "the film star", "the dancer"),
)
# Everyday words from outside the world: they change nothing that is drawn.
_OUTSIDE = """
hat table chair spoon ladder window paper music summer winter monday sister brother school
kitchen river mountain garden bridge letter shirt bottle basket carpet candle pencil book
doctor teacher farmer market village office history science morning evening weather story
coffee bread soup salt silver glass stone sand rope drum violin hammer needle mirror pillow
blanket drawer ticket medal poster calendar neighbour cousin idea question money
"""
_OUTSIDE_HELD_OUT = """
scarf bucket curtain library island desert thunder lamp wallet sweater engineer aunt lecture
breakfast harbour valley wool copper trumpet scissors
"""
OUTSIDE = (tuple(_OUTSIDE.split()), tuple(_OUTSIDE_HELD_OUT.split()))
TAILS = (
    (
        "for my {x}",
        "from the {x}",
        "and a {x}",
        "with a {x}",
        "about the {x}",
        "near the {x}",
        "high quality",
        "very detailed",
        "a masterpiece",
    ),
    ("like a {x}", "made for the {x}", "on my {x}", "award winning", "sharp and clear"),
)
IRREGULAR = {"wolf": "wolves", "mouse": "mice", "cattle": "cattle", "swine": "swine"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Voice:
    """How captions are worded.

    ``held`` takes the held-out wordings; ``words`` how entities are named: "mixed" as in captions,
    or only by "name", "synonym", "description", "held_out" or "held_description"; ``typo`` the
    share of captions with a misspelled letter, ``outside`` of those with words from outside.
    """

    held: bool = False
    words: str = "mixed"
    typo: float = 0.0
    outside: float = 0.0
    extra: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def one_of(self, choices: tuple[tuple[str, ...], tuple[str, ...]], rng: random.Random) -> str:
        """One of the words in captions and the words held out for one meaning."""
        if self.words == "any":
            return rng.choice(choices[0] + choices[1])
        return rng.choice(choices[self.words == "held_out"])


TRAINING = Voice(typo=0.15, outside=0.15)
HELD_OUT = Voice(held=True, words="name")


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun; the last word bears it."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        many = IRREGULAR[last]
    elif last.endswith(("s", "x", "sh", "ch", "o")) and not last.endswith(("oo", "io")):
        many = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}".strip()


def word_for(entity: int, voice: Voice, rng: random.Random, number: int = 1) -> str:
    """A name, synonym or description of an entity."""
    told, words = ENTITIES[entity], voice.words
    if words == "any":
        kinds = ["name", "synonym", "held_out", "description", "held_description", "extra"]
        words = rng.choices(kinds, [0.3, 0.2, 0.15, 0.13, 0.1, 0.12])[0]
    if words == "mixed":
        chances = [0.55, 0.27, 0.18 if number == 1 else 0.0]
        words = rng.choices(["name", "synonym", "description"], chances)[0]
    choices = {
        "name": (told.name,),
        "synonym": told.synonyms,
        "description": told.descriptions,
        "held_out": told.held_out,
        "held_description": told.held_descriptions,
        "extra": voice.extra.get(entity, ()),
    }[words]
    return rng.choice(choices or (told.name,))


def noun_phrase(entity: int, voice: Voice, rng: random.Random, number: int = 1) -> str:
    """An entity with its article or number: "a big tiger", "two cats", "the singer Mara Velden"."""
    word = word_for(entity, voice, rng, number)
    if ENTITIES[entity].kind == "person":
        role = f"{rng.choice(ROLES[voice.held])} " if rng.random() < 0.25 else ""
        return f"{role}{word}"
    if rng.random() < 0.15:
        word = f"{rng.choice(ADJECTIVES[voice.held])} {word}"
    if number == 1 and rng.random() < 0.85:
        return f"the {word}" if rng.random() < 0.1 else article(word)
    said = voice.one_of(NUMBERS[number], rng)
    return f"{said} {word if number == 1 else plural(word)}"


def subjects(said: Scene, voice: Voice, rng: random.Random) -> str:
    """The named and the meant of a scene."""
    parts = []
    if len(said.subjects) == 1:
        parts.append(noun_phrase(said.subjects[0], voice, rng, said.number))
    elif said.subjects:
        link = "and"
        if said.relation:
            link = said.relation
            if rng.random() < 0.4 or voice.words == "held_out":
                link = voice.one_of(RELATION_WORDS[said.relation], rng)
        first, second = (noun_phrase(index, voice, rng) for index in said.subjects)
        parts.append(f"{first} {link} {second}")
    if said.spooky:
        implicit = IMPLICIT_HELD_OUT if voice.held else IMPLICIT
        meant = rng.choice(SPOOKY[voice.held] if rng.random() < 0.3 else implicit)
        parts.insert(rng.randrange(len(parts) + 1), meant)
    return rng.choice((", ", " and ", " with ")).join(parts)


def details(said: Scene, voice: Voice, rng: random.Random) -> list[str]:
    """Ground, artist and place, and what comes from outside the world."""
    parts = []
    if said.place:
        parts.append(voice.one_of(PLACES[said.place], rng))
    if said.colour or said.ground:
        ground = rng.choice(GROUNDS[said.ground or "plain"] or ("",))
        colour = said.colour or ""
        if colour and (voice.words == "held_out" or voice.words != "name" and rng.random() < 0.25):
            colour = voice.one_of(COLOUR_WORDS[colour], rng)
        told = f"{ground} {colour}".strip()
        parts.append(rng.choice(COLOUR[voice.held]).format(x=told))
    if said.artist:
        parts.append(rng.choice(ARTIST[voice.held]).format(x=said.artist))
    if rng.random() < voice.outside:
        outside = rng.choice(OUTSIDE[voice.held])
        parts.append(rng.choice(TAILS[voice.held]).format(x=outside))
    rng.shuffle(parts)
    return parts


def caption(said: Scene, voice: Voice, rng: random.Random) -> str:
    """A sentence that says a spoken scene (:func:`tools.world.scene.spoken`)."""
    what = subjects(said, voice, rng)
    parts = details(said, voice, rng)
    if what:
        what = rng.choice(OPENINGS[voice.held]).format(x=what)
        first = parts and rng.random() < 0.15
        parts = [*parts[:1], what, *parts[1:]] if first else [what, *parts]
    elif not parts:
        parts = [rng.choice(("a picture", "an image", "something"))]
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice((", ", " ", " ")) + part
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return misspell(text, rng) if rng.random() < voice.typo else text


def misspell(text: str, rng: random.Random) -> str:
    """One letter of one word of at least four dropped, doubled, replaced or swapped."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4]
    if not long:
        return text
    place = rng.choice(long)
    words[place] = misspell_word(words[place], rng)
    return " ".join(words)


def misspell_word(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("drop", "double", "replace", "swap"))
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    if kind == "replace":
        return word[:at] + rng.choice(LETTERS) + word[at + 1 :]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
