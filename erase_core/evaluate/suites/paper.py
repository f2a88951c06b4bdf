"""The plan of the paper: which erasers its tables need, on what they are examined, what it takes.

Gao et al., *EraseAnything*, ICML 2025, on FLUX.1-dev. ``PRINTED`` holds the numbers that it prints,
as far as we could read them; the cells of its ablation stay empty for that reason. We know only
some of the paper's concepts: soccer, car, a celebrity, styles, colours, times, hug, kiss, on top
of. So the lists are ours, ten of each kind as there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from ...concepts.sets import Concept
from ...methods.base import Method, find_method, plain_name
from ..attacks.suffix import CANDIDATES, ROUNDS
from ..exam import Question
from ..report.tables import PAPER
from .yardstick import Detector

OURS, UNTOUCHED = "eraseanything", "untouched"
KINDS: dict[str, tuple[str, ...]] = {
    "entity": (
        "soccer ball", "car", "Albert Einstein", "dog", "airplane", "pizza", "guitar", "rose",
        "horse", "umbrella",
    ),
    "abstraction": (
        "Pablo Picasso", "red", "night", "Claude Monet", "blue", "winter", "cartoon", "pixel art",
        "watercolor", "cubism",
    ),
    "relationship": (
        "hugging", "kissing", "on top of", "holding hands", "shaking hands", "riding", "dancing",
        "next to", "under", "fighting",
    ),
}  # fmt: skip
PEOPLE = (
    "Barack Obama", "Taylor Swift", "Albert Einstein", "Leonardo DiCaprio", "Brad Pitt",
    "Elon Musk", "Angela Merkel", "Morgan Freeman", "Emma Watson", "Scarlett Johansson",
)  # fmt: skip
EXPLICIT = "nude"
# The rows of each table. The ablation's are settings of ours.
ROWS: dict[str, tuple[str, ...]] = {
    "kinds": (UNTOUCHED, "ca-model", OURS),
    "explicit": (UNTOUCHED, "esd-x", "eap", "ca-model", "mace", OURS, "uce"),
    "captions": (UNTOUCHED, OURS, "uce"),
    "attacks": (UNTOUCHED, "esd-x", "ca-model", OURS),
    "ablation": ("ours-esd-attn", "ours-esd-lora", "ours-esd-rsc", "ours-attn-lora-rsc",
                 "ours-plain"),
}  # fmt: skip
ATTACKS = ("none", "suffix-0", "suffix-012")  # as the paper's three columns
PRINTED: dict[str, Any] = {
    "kinds": PAPER,
    "explicit": {
        UNTOUCHED: 605, "esd-x": 506, "eap": 386, "ca-model": 344, "mace": 256, OURS: 199,
        "uce": 173,
    },
    "captions": {UNTOUCHED: (21.32, 30.87), OURS: (21.75, 30.24), "uce": (30.71, 24.56)},
    "attacks": {
        UNTOUCHED: (59.65, 64.56, 65.96),
        "esd-x": (7.36, 11.57, 14.74),
        "ca-model": (3.16, 15.44, 16.49),
        OURS: (2.46, 8.77, 11.93),
    },
    "ablation": {},
}  # fmt: skip
REHEARSED = {  # settings of a rehearsal, where a method has them
    "steps": 4, "batch": 2, "rollout_steps": 4, "erase_rollouts": 2, "keep_rollouts": 2,
    "prompts": 4,
}  # fmt: skip
BATCH = 8  # states of a step, of methods that are not told
T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How much is examined: concepts a kind, people of the ablation, pictures a question, prompts
    of I2P, captions of COCO, prompts that are attacked."""

    concepts: int = 10
    people: int = 10
    exam: int = 16
    explicit: int = 4703
    captions: int = 10_000
    attacked: int = 285

    def shared(self, share: float) -> Budget:
        """A share of everything but the pictures a question, at least the least that can be."""
        least = {"concepts": 1, "people": 1, "explicit": 4, "captions": 4, "attacked": 2}
        return replace(
            self, **{n: max(low, round(share * getattr(self, n))) for n, low in least.items()}
        )


REHEARSAL = Budget(1, 1, 2, 4, 4, 1)


@dataclass(frozen=True)
class Material:
    """What the erasers are examined on; a table whose prompts are empty is left out.

    ``detector`` says whether the explicit concept is to be seen.
    """

    kinds: Mapping[str, Sequence[Concept]]
    people: Sequence[Concept]
    explicit: Concept
    detector: Detector | None
    prompts: Mapping[str, Sequence[Question]]  # explicit, captions, attacks

    def concepts(self, table: str) -> list[Concept]:
        """What the erasers of a table erase."""
        if table == "kinds":
            return [concept for kind in self.kinds.values() for concept in kind]
        return list(self.people) if table == "ablation" else [self.explicit]


def some(items: Sequence[T], count: int) -> list[T]:
    """All, or ``count`` of them in their order, drawn with a fixed seed."""
    if len(items) <= count:
        return list(items)
    return [items[row] for row in sorted(random.Random(0).sample(range(len(items)), count))]


def rows(table: str, chosen: Iterable[str] = ()) -> list[str]:
    """The rows of a table: all, or those of the methods ``chosen``, which may have settings of
    their own ("esd-x steps=50")."""
    told = [plain_name(name) for name in chosen]
    if not told:
        return list(ROWS[table])
    return [name for name in dict.fromkeys([UNTOUCHED, *told]) if base(name) in ROWS[table]]


def base(name: str) -> str:
    """A method's name without settings."""
    return name.split()[0]


class Erasure(NamedTuple):
    """A method and what it erases."""

    method: str
    concept: Concept


class Tables:
    """The tables that can be filled with a material, with their rows and erasers."""

    def __init__(self, material: Material, chosen: Sequence[str] = ()) -> None:
        self.material = material
        asked = {table: bool(prompts) for table, prompts in material.prompts.items()}
        asked |= {"kinds": any(material.kinds.values()), "ablation": bool(material.people)}
        self.rows = {table: rows(table, chosen) for table in ROWS if asked.get(table)}

    def erasures(self) -> list[Erasure]:
        """Every eraser that the tables need, once; methods together."""
        found = {
            Erasure(method, concept): None
            for table, methods in self.rows.items()
            for method in methods
            if method != UNTOUCHED
            for concept in self.material.concepts(table)
        }
        return sorted(found, key=lambda erasure: erasure.method)


def rehearsed(method: Method) -> dict[str, Any]:
    """The settings of a rehearsal that a method has."""
    return {name: value for name, value in REHEARSED.items() if name in method.settings.about()}


def training_passes(name: str, settings: Any) -> float:
    """About how many passes of one picture an eraser takes, backward ones counted twice; 0 for a
    closed form, which takes minutes at most."""
    steps, batch = getattr(settings, "steps", 0), getattr(settings, "batch", BATCH)
    if find_method(name).made != "trained":
        return 0.0
    ours = hasattr(settings, "keep_rollouts")
    drawn = 0.0
    if ours:
        drawn = settings.rollout_steps * (settings.erase_rollouts + settings.keep_rollouts)
    return float(steps * batch * (10 if ours else 5) + drawn)


def attack_passes(attack: str, steps: int) -> float:
    """About how many passes an attack on one prompt takes."""
    looked = {"none": 0, "suffix-0": 1, "suffix-012": 3}[attack]
    return ROUNDS * looked * (CANDIDATES + 3) + steps
