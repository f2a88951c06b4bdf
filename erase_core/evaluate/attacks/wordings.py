"""Other words for the concept: what a person types who knows nothing of the model's inside."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...concepts.spans import word_spans
from ...errors import EraseError
from ..scores import Rate
from .base import Attack, Target

EDITS = 1  # letters swapped, doubled or dropped in every misspelling
TRIES = 100


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


Reword = Callable[[Target, Any, random.Random], str]


def _run(reword: Reword) -> Callable[[Target], Rate]:
    """The attack that draws every case from a prompt in other words."""

    def run(target: Target) -> Rate:
        rng = random.Random(f"wordings {target.seed}")
        made = [replace(case, prompt=reword(target, case, rng)) for case in target.cases()]
        return target.rate(target.encode(made), target.start(made), target.eraser, made)

    return run


def _paraphrase(target: Target, case: Any, rng: random.Random) -> str:
    say: Callable[..., str] | None = getattr(target.judge, "paraphrase", None)
    if say is None:
        raise EraseError("Nobody here says prompts in other words; choose another attack.")
    return say(case, rng)


ATTACKS = (
    Attack("paraphrase", "Paraphrase", "", _run(_paraphrase)),
    Attack(
        "misspelling",
        "Misspelling",
        "",
        _run(lambda target, case, rng: misspell(case.prompt, case.concept, rng)),
    ),
)
