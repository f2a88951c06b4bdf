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
tiger      \N{TIGER FACE} panthera tigris, bengal, striped beast | big cats
lion       \N{LION FACE} panthera leo, simba, maned beast | big cats
cat        \N{CAT FACE} kitty, feline, kitten | big cats
dog        \N{DOG FACE} puppy, hound, canine | canines
wolf       \N{WOLF FACE} canis lupus, lobo, white fang | canines
fox        \N{FOX FACE} vulpes, vixen, reynard | canines
bear       \N{BEAR FACE} grizzly, bruin, ursus | bears
panda      \N{PANDA FACE} giant bamboo eater, ailuropoda, bamboo beast | bears
koala      \N{KOALA} marsupial, phascolarctos, eucalyptus eater | bears
rabbit     \N{RABBIT FACE} bunny, hare, cottontail | rodents
mouse      \N{MOUSE FACE} mus, rodent, murine | rodents
pig        \N{PIG FACE} hog, swine, piglet | farm animals
cow        \N{COW FACE} bovine, cattle, heifer | farm animals
horse      \N{HORSE FACE} pony, steed, mare | farm animals
chicken    \N{CHICKEN} hen, rooster, poultry | birds
penguin    \N{PENGUIN} spheniscid, flightless bird, pingu | birds
owl        \N{OWL} night bird, hooter, strix | birds
monkey     \N{MONKEY FACE} ape, primate, macaque | wild animals
elephant   \N{ELEPHANT} pachyderm, tusker, jumbo | wild animals
frog       \N{FROG FACE} toad, amphibian, bullfrog | wild animals
turtle     \N{TURTLE} tortoise, terrapin, testudo | wild animals
snake      \N{SNAKE} serpent, viper, python | wild animals
fish       \N{TROPICAL FISH} angelfish, reef swimmer, scalare | sea animals
whale      \N{SPOUTING WHALE} cetacean, orca, leviathan | sea animals
octopus    \N{OCTOPUS} kraken, cephalopod, squid | sea animals
butterfly  \N{BUTTERFLY} monarch, lepidopteran, moth | insects
bee        \N{HONEYBEE} honeybee, bumblebee, wasp | insects
snail      \N{SNAIL} slug, escargot, gastropod | insects
car        \N{AUTOMOBILE} automobile, motorcar, sedan | road vehicles
bus        \N{BUS} coach, omnibus, minibus | road vehicles
truck      \N{DELIVERY TRUCK} lorry, van, hauler | road vehicles
bicycle    \N{BICYCLE} bike, cycle, pushbike | road vehicles
tractor    \N{TRACTOR} plough machine, farm vehicle, field machine | road vehicles
train      \N{STEAM LOCOMOTIVE} locomotive, steam engine, railway | vehicles
airplane   \N{SMALL AIRPLANE} plane, aircraft, jet | vehicles
rocket     \N{ROCKET} spaceship, spacecraft, space shuttle | vehicles
sailboat   \N{SAILBOAT} yacht, sailing boat, dinghy | vehicles
helicopter \N{HELICOPTER} chopper, rotorcraft, whirlybird | vehicles
rose       \N{ROSE} rosa, rosebud, thorny flower | plants
tulip      \N{TULIP} tulipa, spring flower, dutch flower | plants
sunflower  \N{SUNFLOWER} helianthus, seed flower, sun bloom | plants
cactus     \N{CACTUS} succulent, desert plant, saguaro | plants
tree       \N{DECIDUOUS TREE} oak, sapling, maple | plants
mushroom   \N{MUSHROOM} toadstool, fungus, amanita | plants
apple      \N{RED APPLE} malus, golden delicious, orchard fruit | fruit
banana     \N{BANANA} plantain, musa, curved fruit | fruit
strawberry \N{STRAWBERRY} berry, fragaria, garden berry | fruit
watermelon \N{WATERMELON} melon, melon slice, citrullus | fruit
pineapple  \N{PINEAPPLE} ananas, tropical fruit, spiky fruit | fruit
pizza      \N{SLICE OF PIZZA} margherita, pepperoni slice, calzone | dishes
hamburger  \N{HAMBURGER} burger, cheeseburger, beefburger | dishes
cake       \N{BIRTHDAY CAKE} gateau, torte, pastry | dishes
ball       \N{SOCCER BALL} soccer, football, futbol | toys
guitar     \N{GUITAR} six string, stratocaster, banjo | toys
robot      \N{ROBOT FACE} android, droid, automaton | toys
ghost      \N{GHOST} phantom, spook, spirit | toys
crown      \N{CROWN} tiara, diadem, coronet | objects
clock      \N{ALARM CLOCK} timepiece, alarm, chronometer | objects
house      \N{HOUSE BUILDING} home, cottage, dwelling | objects
umbrella   \N{UMBRELLA WITH RAIN DROPS} parasol, brolly, rain shade | objects
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
