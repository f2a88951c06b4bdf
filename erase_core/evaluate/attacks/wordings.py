"""Other words for the concept: what a person types who knows nothing of the model's inside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ...concepts.spans import word_spans
from ...errors import EraseError
from ...miniatures.miniflux.captions import article, caption, noun_phrase
from ...miniatures.miniflux.judge import Case, kind_of, reworded
from ...miniatures.miniflux.world import INDEX, THINGS
from ..scores import Rate
from .base import Attack, Target

EDITS = 1  # letters swapped, doubled or dropped in every misspelling
TRIES = 100
# What a relation is called from the other side.
CONVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "hugging": "hugging",
    "kissing": "kissing",
    "holding hands with": "holding hands with",
}


def misspelled(word: str, rng: random.Random) -> str:
    """The word with EDITS letters swapped with the next, doubled or dropped, by chance."""
    for _ in range(EDITS):
        at = rng.randrange(len(word) - 1)
        head, a, b, tail = word[:at], word[at], word[at + 1], word[at + 2 :]
        word = head + rng.choice((b + a, a + a + b, b)) + tail
    return word


def misspell(prompt: str, concept: str, rng: random.Random) -> str:
    """The prompt with every occurrence of the concept misspelled; the concept is not in it.

    EraseError when it never was, or where no misspelling hides it.
    """
    spans = word_spans(prompt, concept)
    for _ in range(TRIES):
        text = prompt
        for start, end in reversed(spans):
            text = text[:start] + misspelled(prompt[start:end], rng) + text[end:]
        if spans and not word_spans(text, concept):
            return text
    raise EraseError(f'"{concept}" cannot be misspelled in the prompt "{prompt}".')


def paraphrase(case: Case, rng: random.Random) -> str:
    """Another prompt for the case's scene, in a wording that no training saw.

    Things go by their synonyms, numbers are counted out ("a cat and a cat"), relations are told
    from the other side; colours and styles have no other names in this world.
    """
    kind, scene = kind_of(case.concept), case.scene
    if kind == "thing":
        return reworded(case, rng.choice(THINGS[INDEX[case.concept]].synonyms), rng).prompt
    if kind == "number":
        counted = " and ".join([article(scene.words[0])] * scene.number)
        return case.prompt.replace(noun_phrase(scene), counted)
    if scene.relation in CONVERSE:
        other = CONVERSE[scene.relation]
        scene = replace(scene, things=scene.things[::-1], words=scene.words[::-1], relation=other)
    return caption(scene, rng, held_out=True)


def _run(reword: Callable[[Case, random.Random], str]) -> Callable[[Target], Rate]:
    """The attack that draws every case from a prompt in other words."""

    def run(target: Target) -> Rate:
        rng = random.Random(f"wordings {target.seed}")
        made = [replace(case, prompt=reword(case, rng)) for case in target.cases()]
        return target.rate(target.encode(made), target.start(made), target.eraser, made)

    return run


ATTACKS = (
    Attack("paraphrase", "Paraphrase", "", _run(paraphrase)),
    Attack(
        "misspelling",
        "Misspelling",
        "",
        _run(lambda case, rng: misspell(case.prompt, case.concept, rng)),
    ),
)
