"""MiniFlux's world: the things, colours, styles, numbers and relations it can draw and name.

Emoji stand for things; a thing's synonyms mean exactly the same picture, its group holds the near
neighbours that an eraser hurts first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """A thing with its emoji, its synonyms (two or more) and its group of near neighbours."""

    name: str
    emoji: str
    synonyms: tuple[str, ...]
    group: str


_TABLE = """
tiger      🐯 panthera tigris, bengal, striped beast | big cats
lion       🦁 panthera leo, simba, maned beast | big cats
cat        🐱 kitty, feline, kitten | big cats
dog        🐶 puppy, hound, canine | canines
wolf       🐺 canis lupus, lobo, white fang | canines
fox        🦊 vulpes, vixen, reynard | canines
bear       🐻 grizzly, bruin, ursus | bears
panda      🐼 giant bamboo eater, ailuropoda, bamboo beast | bears
koala      🐨 marsupial, phascolarctos, eucalyptus eater | bears
rabbit     🐰 bunny, hare, cottontail | rodents
mouse      🐭 mus, rodent, murine | rodents
pig        🐷 hog, swine, piglet | farm animals
cow        🐮 bovine, cattle, heifer | farm animals
horse      🐴 pony, steed, mare | farm animals
chicken    🐔 hen, rooster, poultry | birds
penguin    🐧 spheniscid, flightless bird, pingu | birds
owl        🦉 night bird, hooter, strix | birds
monkey     🐵 ape, primate, macaque | wild animals
elephant   🐘 pachyderm, tusker, jumbo | wild animals
frog       🐸 toad, amphibian, bullfrog | wild animals
turtle     🐢 tortoise, terrapin, testudo | wild animals
snake      🐍 serpent, viper, python | wild animals
fish       🐠 angelfish, reef swimmer, scalare | sea animals
whale      🐳 cetacean, orca, leviathan | sea animals
octopus    🐙 kraken, cephalopod, squid | sea animals
butterfly  🦋 monarch, lepidopteran, moth | insects
bee        🐝 honeybee, bumblebee, wasp | insects
snail      🐌 slug, escargot, gastropod | insects
car        🚗 automobile, motorcar, sedan | road vehicles
bus        🚌 coach, omnibus, minibus | road vehicles
truck      🚚 lorry, van, hauler | road vehicles
bicycle    🚲 bike, cycle, pushbike | road vehicles
tractor    🚜 plough machine, farm vehicle, field machine | road vehicles
train      🚂 locomotive, steam engine, railway | vehicles
airplane   🛩 plane, aircraft, jet | vehicles
rocket     🚀 spaceship, spacecraft, space shuttle | vehicles
sailboat   ⛵ yacht, sailing boat, dinghy | vehicles
helicopter 🚁 chopper, rotorcraft, whirlybird | vehicles
rose       🌹 rosa, rosebud, thorny flower | plants
tulip      🌷 tulipa, spring flower, dutch flower | plants
sunflower  🌻 helianthus, seed flower, sun bloom | plants
cactus     🌵 succulent, desert plant, saguaro | plants
tree       🌳 oak, sapling, maple | plants
mushroom   🍄 toadstool, fungus, amanita | plants
apple      🍎 malus, golden delicious, orchard fruit | fruit
banana     🍌 plantain, musa, curved fruit | fruit
strawberry 🍓 berry, fragaria, garden berry | fruit
watermelon 🍉 melon, melon slice, citrullus | fruit
pineapple  🍍 ananas, tropical fruit, spiky fruit | fruit
pizza      🍕 margherita, pepperoni slice, calzone | dishes
hamburger  🍔 burger, cheeseburger, beefburger | dishes
cake       🎂 gateau, torte, pastry | dishes
ball       ⚽ soccer, football, futbol | toys
guitar     🎸 six string, stratocaster, banjo | toys
robot      🤖 android, droid, automaton | toys
ghost      👻 phantom, spook, spirit | toys
crown      👑 tiara, diadem, coronet | objects
clock      ⏰ timepiece, alarm, chronometer | objects
house      🏠 home, cottage, dwelling | objects
umbrella   ☔ parasol, brolly, rain shade | objects
"""


def _things() -> tuple[Thing, ...]:
    rows = []
    for line in _TABLE.strip().splitlines():
        head, group = line.split("|")
        name, emoji, synonyms = head.split(maxsplit=2)
        words = tuple(word.strip() for word in synonyms.split(","))
        rows.append(Thing(name, emoji, words, group.strip()))
    return tuple(rows)


THINGS: tuple[Thing, ...] = _things()

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

# How a caption says a style: as a noun before "of", and as an adjective before "style".
STYLES: dict[str, tuple[str, str]] = {
    "sketch": ("a pencil sketch", "sketch"),
    "mosaic": ("a mosaic", "mosaic"),
    "grey": ("a grey photo", "grey"),
    "sepia": ("a sepia photo", "sepia"),
    "neon": ("a neon sign", "neon"),
    "watercolour": ("a watercolour", "watercolour"),
    "comic": ("a comic drawing", "comic"),
}
# Styles whose pictures no longer show the colour of the ground.
COLOURLESS: frozenset[str] = frozenset({"sketch", "grey", "sepia", "neon"})

NUMBERS: tuple[str, ...] = ("one", "two", "three", "four")

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

# "A left of B" says the same as "B right of A": who erases one erases both.
CONVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

# What a picture shows of a relation apart from who is where: the recogniser's classes.
LAYOUTS: tuple[str, ...] = (
    "none",
    "beside",
    "stacked",
    "inside",
    "hugging",
    "kissing",
    "holding hands",
)
LAYOUT_OF: dict[str, str] = {
    "left of": "beside",
    "right of": "beside",
    "above": "stacked",
    "below": "stacked",
    "inside": "inside",
    "hugging": "hugging",
    "kissing": "kissing",
    "holding hands with": "holding hands",
}

INDEX: dict[str, int] = {thing.name: i for i, thing in enumerate(THINGS)}


def neighbours(name: str) -> list[str]:
    """The other things of a thing's group: what an eraser of ``name`` must not hurt."""
    group = THINGS[INDEX[name]].group
    return [thing.name for thing in THINGS if thing.group == group and thing.name != name]
