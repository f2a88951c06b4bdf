"""Words in the host's text encoders, whatever family: which states of a prompt are a word's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import comfy.utils
import torch
from torch import Tensor

from ..erase_core.concepts.sets import Concept, ConceptSet
from ..erase_core.erasers.guards.gate import FRAMES, WordGate, kept_words
from ..erase_core.erasers.guards.sae import Features, SaeSettings, learn
from ..erase_core.erasers.guards.safree import Space
from ..erase_core.errors import EraseError
from ..erase_core.models.base import Conditioning
from .guarding import prompt

_LEARNED: WeakKeyDictionary[Any, dict[str, Features]] = WeakKeyDictionary()


def word_gates(clip: Any, concepts: ConceptSet) -> dict[str, WordGate]:
    """A gate for each concept's name, in the space of a CLIP of the host."""
    known = {c.name: _Known(clip, c, concepts.names()) for c in concepts.concepts}
    return {name: WordGate(own.names, own.kept) for name, own in known.items()}


def spaces(clip: Any, concepts: ConceptSet) -> dict[str, Space]:
    """Where each concept lies in the space of a CLIP of the host."""
    known = {c.name: _Known(clip, c, concepts.names()) for c in concepts.concepts}
    return {
        name: Space(own.names, own.kept, own.pooled, own.pooled_kept) for name, own in known.items()
    }


def features(clip: Any, concepts: ConceptSet, settings: SaeSettings) -> Features:
    """Sparse features in the space of a CLIP of the host, learned once for as long as it lives."""
    known = _LEARNED.setdefault(clip, {})
    key = json.dumps([concepts.to_json(), settings.to_dict()], sort_keys=True)
    if key not in known:
        bar = comfy.utils.ProgressBar(settings.steps)  # which also hears of Cancel
        tensors = learn(partial(_encoded, clip), concepts, settings, bar.update_absolute)
        known[key] = Features(tensors, settings.active)
    return known[key]


def _encoded(clip: Any, prompts: Sequence[str]) -> Conditioning:
    """Prompts as the core knows them; a shorter one is filled up, and says so by its mask."""
    conds = [prompt(clip, text) for text in prompts]
    rows = [states(cond)[0] for cond in conds]
    mask = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.bool)
    for row, read in zip(rows, mask, strict=True):
        read[: len(row)] = True
    context = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Conditioning(context, _pooled(conds), mask)


class _Known:
    """A concept's names and the words that must stay, encoded."""

    def __init__(self, clip: Any, concept: Concept, erased: tuple[str, ...]) -> None:
        placed = [(frame, name) for name in concept.names() for frame in FRAMES]
        named = [prompt(clip, frame + name) for frame, name in placed]
        kept = [prompt(clip, f + word) for word in kept_words(concept, erased) for f in FRAMES]
        self.names = [
            word_states(clip, frame, name, states(cond)[0])
            for cond, (frame, name) in zip(named, placed, strict=True)
        ]
        self.kept = [states(cond)[0] for cond in kept]
        self.pooled, self.pooled_kept = _pooled(named), _pooled(kept)


def states(cond: Any) -> Tensor:
    """The text states (B, T, D) of a CONDITIONING's first entry."""
    return cond[0][0].float().cpu()


def _pooled(conds: list[Any]) -> Tensor | None:
    """The pooled vectors (N, P) of CONDITIONINGs of one row each, where they have any."""
    found = [cond[0][1].get("pooled_output") for cond in conds]
    return None if any(each is None for each in found) else torch.cat(found).float().cpu()


def word_states(clip: Any, before: str, word: str, found: Tensor) -> Tensor:
    """Of the states ``found`` (T, D) of a prompt that ``word`` ends, those of its tokens, (n, D).

    EraseError when the CLIP does not tell them apart.
    """
    where = place(clip, before, word, before + word, len(found))
    if where is None:
        raise EraseError(f'This CLIP does not say which of its states are "{word}".')
    return found[where]


def place(clip: Any, before: str, word: str, whole: str, length: int) -> slice | None:
    """Where the tokens of ``word``, which follows ``before`` in the text ``whole``, stand among its
    ``length`` states.

    Encoders put templates before a prompt and padding after it, and hand on the states of only some
    of that; token and state lists always end together.
    """
    all_of_it = tokens(clip, whole)
    fitting = [key for key in all_of_it if len(all_of_it[key]) == length]
    key = (fitting or sorted(all_of_it, key=lambda key: len(all_of_it[key])))[-1]
    longer, shorter = tokens(clip, before + word)[key], tokens(clip, before.strip())[key]
    first, count = added(longer, shorter)
    start = first + length - len(all_of_it[key])
    return slice(start, start + count) if count and start >= 0 else None


def tokens(clip: Any, text: str) -> dict[str, list[int]]:
    """Token ids of a text for each encoder of a CLIP, padding and templates among them."""
    plain = clip.tokenize(text.replace("(", r"\(").replace(")", r"\)"))
    return {
        key: [entry[0] for chunk in chunks for entry in chunk]
        for key, chunks in plain.items()
        if isinstance(chunks, list)
    }


def added(longer: list[Any], shorter: list[Any]) -> tuple[int, int]:
    """Where the tokens stand that ``longer`` has more, and how many: both end alike, and one may be
    cut or padded to the other's length."""
    same = zip(longer, shorter, strict=False)
    start = next((i for i, (a, b) in enumerate(same) if a != b), min(len(longer), len(shorter)))
    for count in range(1, len(longer) - start + 1):
        rest = longer[start + count :]
        if rest == shorter[start : start + len(rest)]:
            return start, count
    return start, 0
