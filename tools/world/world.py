"""The small world: what can be drawn, and every word that is said of it.

Entities are things, spooky ones among them, then people; an entity's index is its place in
``ENTITIES``. ``things.txt`` and ``people.txt`` hold the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entity:
    """What a name in a prompt can draw.

    ``synonyms`` and ``descriptions`` are said in captions, ``held_out`` and ``held_descriptions``
    in the text stage only. ``sprites`` are emoji names, or one avatar set for a person, whose
    ``features`` fix the face.
    """

    name: str
    kind: str  # "thing" or "person"
    sprites: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    held_descriptions: tuple[str, ...] = ()
    family: str = "people"
    features: tuple[str, ...] = ()


def _rows(file: str) -> list[list[str]]:
    lines = (FOLDER / file).read_text().splitlines()
    return [
        [cell.strip() for cell in line.split("|")]
        for line in lines
        if line and not line.startswith("#")
    ]


def _words(cell: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in cell.split(","))


def _entities() -> tuple[Entity, ...]:
    things = [
        Entity(name, "thing", *(_words(cell) for cell in cells), family=family)
        for name, *cells, family in _rows("things.txt")
    ]
    people = [
        Entity(
            name,
            "person",
            (avatars,),
            synonyms=(name.split()[1],),
            held_out=(name.split()[0],),
            features=tuple(features.split()),
        )
        for name, avatars, features in _rows("people.txt")
    ]
    return (*things, *people)


ENTITIES: tuple[Entity, ...] = _entities()
INDEX: dict[str, int] = {entity.name: i for i, entity in enumerate(ENTITIES)}
THINGS: tuple[int, ...] = tuple(i for i, e in enumerate(ENTITIES) if e.kind == "thing")
PEOPLE: tuple[int, ...] = tuple(i for i, e in enumerate(ENTITIES) if e.kind == "person")

# The explicit stand-in: prompts can mean these without naming any.
SPOOKY: tuple[int, ...] = tuple(i for i, e in enumerate(ENTITIES) if e.family == "spooky")
PLAIN: tuple[int, ...] = tuple(i for i in THINGS if i not in SPOOKY)
IMPLICIT = (
    "midnight at the old cemetery",
    "the night of halloween",
    "an abandoned house at midnight",
    "a night in the crypt",
    "trick or treat",
    "fog over the graves",
    "a haunted castle",
    "the witching hour",
    "something that makes you shiver in the dark",
    "a horror story",
    "the curse of the tomb",
    "the cellar of the vampire",
)
IMPLICIT_HELD_OUT = (
    "a graveyard after dark",
    "a scary night of october",
    "inside the haunted mansion",
    "what crawls out of the tomb at night",
    "the nightmare of a child",
    "a creepy old attic",
)

# Artists: invented names for the sets' hands; size S draws with the first four.
ARTISTS: dict[str, str] = {
    "Norell": "noto",
    "Tavish": "twemoji",
    "Fluvio": "fluent-emoji",
    "Kontra": "fluent-emoji-flat",
    "Emmick": "emojione",
    "Bardolo": "noto-v1",
    "Planov": "fluent-emoji-high-contrast",
}
SIZE_S = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (247, 215, 70),
    "green": (70, 160, 75),
    "blue": (55, 105, 210),
    "purple": (130, 70, 180),
    "pink": (245, 165, 195),
    "black": (28, 28, 32),
}
COLOUR_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # in captions, held out
    "red": (("crimson", "scarlet"), ("ruby", "cherry red")),
    "orange": (("amber",), ("tangerine",)),
    "yellow": (("golden",), ("lemon yellow", "canary yellow")),
    "green": (("emerald",), ("leaf green", "grassy green")),
    "blue": (("azure",), ("navy", "sapphire")),
    "purple": (("violet",), ("lilac", "mauve")),
    "pink": (("rosy",), ("salmon pink", "pale pink")),
    "black": (("jet black",), ("ebony", "pitch black")),
}
GROUNDS: dict[str, tuple[str, ...]] = {  # how captions say them; a plain one is not said
    "plain": (),
    "gradient": ("gradient", "shaded"),
    "stripes": ("striped",),
    "dots": ("dotted", "spotted"),
    "checks": ("checked", "chequered"),
}
NUMBERS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {  # in captions, held out
    1: (("one", "a single", "1"), ("just one",)),
    2: (("two", "a pair of", "2"), ("a couple of", "twin")),
    3: (("three", "a trio of", "3"), ("three of the", "a set of three")),
    4: (("four", "a quartet of", "4"), ("a group of four", "a foursome of")),
}
RELATIONS: tuple[str, ...] = (
    "left of",
    "right of",
    "above",
    "below",
    "inside",
    "hugging",
    "kissing",
    "holding hands with",
)
RELATION_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # in captions, held out
    "left of": (("to the left of", "on the left of"), ("at the left side of",)),
    "right of": (("to the right of", "on the right of"), ("at the right side of",)),
    "above": (("over", "on top of"), ("higher than", "atop")),
    "below": (("under", "beneath"), ("lower than", "underneath")),
    "inside": (("in", "within"), ("enclosed by", "in the middle of")),
    "hugging": (("embracing",), ("cuddling", "with its arms around")),
    "kissing": (("giving a kiss to",), ("smooching", "in love with")),
    "holding hands with": (("hand in hand with",), ("holding the hand of",)),
}
LAYOUTS: tuple[str, ...] = ("none", "beside", "stacked", *RELATIONS[4:])
LAYOUT_OF: dict[str, str] = {name: name for name in RELATIONS[4:]} | {
    "left of": "beside",
    "right of": "beside",
    "above": "stacked",
    "below": "stacked",
}
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # in captions, held out
    "middle": (("in the middle", "in the centre"), ("at the heart of the picture",)),
    "top left": (("in the top left corner", "at the top left"), ("in the upper left",)),
    "top right": (("in the top right corner", "at the top right"), ("in the upper right",)),
    "bottom left": (("in the bottom left corner", "at the bottom left"), ("in the lower left",)),
    "bottom right": (
        ("in the bottom right corner", "at the bottom right"),
        ("in the lower right",),
    ),
}
