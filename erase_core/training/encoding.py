"""Prompts as closed forms read them: encoded once for all concepts, without their padding, and
kept in a folder for the next time.

A closed form takes a second where its prompts are known. Encoding them with true T5-XXL takes an
hour on a CPU, so a person is told beforehand (:class:`Work`).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import EraseError
from ..models.base import Conditioning, TextEncoder
from ..processes import Shared
from ..tensors import read_tensors, save_tensors

CHUNK = 8  # prompts encoded at a time
PROBE = "a photo of a cat in the snow"  # what encoders make of it tells them apart
PADDING = 2  # rows kept behind a prompt's own: its end, and one of padding
CPU, CARD = 0.19e12, 15e12  # FLOP a second: T5-XXL in float32 on a desktop's cores; a common card
WORTH = 1e11  # FLOP of a prompt from which its states are worth a file
CACHE = "ERASEANYTHING_CACHE"  # in the environment: where states are kept


def cache_folder() -> Path:
    """Where a program keeps states: CACHE, or ``.cache/eraseanything`` in the home folder."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "eraseanything") / "states"


class Remembered:
    """Text encoders that encode nothing that another process has encoded.

    The very same prompts at once, that is: the size of a batch moves the last bits.
    """

    def __init__(self, text: TextEncoder, shared: Shared) -> None:
        self.text, self.shared = text, shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self.text, name)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """As the encoders do."""
        name = hashlib.sha256("\0".join(prompts).encode()).hexdigest()
        found: Conditioning | None = self.shared.get(name)
        if found is None:
            found = self.text.encode(prompts)
            tensors = [part for part in (found.context, found.pooled) if part is not None]
            self.shared.put(name, found, sum(tensor.nbytes for tensor in tensors))
        return found


class State(NamedTuple):
    """What the encoders say of a prompt, float32 in main memory. ``tokens`` (n, D) are those of its
    own words, its end and one of padding; of the empty prompt all that are read. ``pooled`` (P,) is
    None where the family reads none."""

    tokens: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class Work:
    """What encoding takes: ``prompts`` that are wanted, ``known`` of them, FLOP of the others."""

    prompts: int
    known: int
    flop: float

    @property
    def seconds(self) -> float:
        """On a CPU, about."""
        return self.flop / CPU

    def __str__(self) -> str:
        if self.known == self.prompts:
            return f"all {self.prompts} prompts are known already"
        known = f" ({self.known} are known already)" if self.known else ""
        return (
            f"{self.prompts - self.known} prompts to encode{known}: {self.flop / 1e12:.3g} TFLOP, "
            f"about {_time(self.seconds)} on a CPU, {_time(self.flop / CARD)} on a card"
        )


class Encoder:
    """Encodes prompts, each once; with a ``folder`` it finds there what was encoded before.

    Files there are named by the prompt and by what the encoders make of PROBE. So other encoders,
    other lengths or an encoder with a LoRA find nothing of each other's. Small encoders
    keep nothing: they are as fast as a disk. What cannot be read is encoded anew, and what cannot
    be written is not kept.
    """

    def __init__(self, text: TextEncoder, folder: Path | None = None) -> None:
        self.text = text
        self.folder = folder / _fingerprint(text) if folder and text.flop >= WORTH else None
        self._states: dict[str, State] = {}

    def work(self, texts: Iterable[str]) -> Work:
        """What :meth:`encode` of these prompts takes."""
        wanted = list(dict.fromkeys(texts))
        missing = sum(not self._known(text) for text in wanted)
        return Work(len(wanted), len(wanted) - missing, missing * self.text.flop)

    def encode(
        self, texts: Iterable[str], on_chunk: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, State]:
        """The states of these prompts; ``on_chunk`` hears how many of how many are encoded."""
        wanted = list(dict.fromkeys(texts))
        for text in wanted:
            if self._known(text) and text not in self._states:
                with suppress(EraseError, KeyError):
                    self._states[text] = self._read(text)
        missing = [text for text in wanted if text not in self._states]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            cond = self.text.encode(part).to("cpu")
            for row, text in enumerate(part):
                used = _used(self.text, text)
                if cond.mask is not None:
                    used = min(used, int(cond.mask[row].sum()))
                kept = cond.context[row, :used].float().clone()
                pooled = None if cond.pooled is None else cond.pooled[row].float().clone()
                self._keep(text, State(kept, pooled))
            on_chunk(start + len(part), len(missing))
        return {text: self._states[text] for text in wanted}

    def _known(self, text: str) -> bool:
        path = self._path(text)
        return text in self._states or (path is not None and path.is_file())

    def _read(self, text: str) -> State:
        path = self._path(text)
        assert path is not None
        tensors, _ = read_tensors(path)
        pooled = tensors.get("pooled")
        return State(tensors["tokens"].clone(), None if pooled is None else pooled.clone())

    def _keep(self, text: str, state: State) -> None:
        self._states[text] = state
        path = self._path(text)
        if path is not None:
            with suppress(EraseError, OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(path, {n: t for n, t in state._asdict().items() if t is not None})

    def _path(self, text: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def _fingerprint(text: TextEncoder) -> str:
    """A name of the encoders: a hash of what they make of PROBE, and of its length."""
    cond = text.encode([PROBE]).to("cpu")
    digest = hashlib.sha256(f"{text.length}".encode())
    for tensor in (cond.context, cond.pooled):
        if tensor is not None:
            digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _used(text: TextEncoder, prompt: str) -> int:
    """How many of a prompt's rows are kept."""
    if not prompt:
        return text.length
    try:
        own = text.token_mask(prompt, prompt).nonzero()
    except EraseError:  # longer than the encoder reads: no padding
        return text.length
    return min(text.length, int(own.max()) + 1 + PADDING)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{math.ceil(seconds / 60)} min"
