"""How long the closed forms take for many concepts at FLUX.1's true widths.

    PYTHONPATH=. python tools/bench/instant.py [--concepts 100] [--threads 2] [METHOD ...]

The two matrices (txt_in 4096 -> 3072, vector_in 768 -> 3072) and the states are random; solving
knows no difference. Encoding is left out: it depends on the machine, and commands tell it before.
Prints JSON: rows of states, and each method's seconds, CPU seconds and the process's most memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erase_core.concepts.sets import Bands, Concept, ConceptSet
from erase_core.concepts.spans import word_spans
from erase_core.machine import peak_memory
from erase_core.methods.base import Folders, Task, find_method, methods
from erase_core.methods.closed import AnchoredSettings, read, spared
from erase_core.models.base import Conditioning, Model
from erase_core.models.flux1 import FAMILY
from erase_core.models.flux1.config import FluxConfig
from erase_core.models.flux1.names import skeleton

CONFIG = FluxConfig()
LENGTH = 16
KEPT = 40  # words that stay
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class RandomText:
    """Encodes a prompt as a random vector for each word beside one that all share."""

    length, flop = LENGTH, 1e12  # worth keeping: read once for all methods

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        words = [(p.split(" ") + ["<pad>"] * LENGTH)[:LENGTH] for p in prompts]
        rows = torch.stack([torch.stack([self._state(w, 4096) for w in row]) for row in words])
        pooled = torch.stack(
            [torch.stack([self._state(w, 768) for w in row]).mean(0) for row in words]
        )
        return Conditioning(rows, pooled)

    def release(self) -> None:
        """Nothing is held."""

    def token_mask(self, prompt: str, word: str) -> Tensor:
        mask, end = torch.zeros(LENGTH), 0
        spans = word_spans(prompt, word)
        for index, token in enumerate(prompt.split(" ")[:LENGTH]):
            start, end = end, end + len(token) + 1
            mask[index] = float(any(start < b and a < end - 1 for a, b in spans))
        return mask

    def _state(self, word: str, width: int) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        shared = torch.randn(width, generator=torch.Generator().manual_seed(0))
        return shared + 0.3 * torch.randn(width, generator=generator)


def make_task(count: int, states: Path) -> Task:
    """``count`` concepts of two words each, and a model with nothing but the two matrices."""
    tree = skeleton(CONFIG).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name in ("txt_in", "vector_in.in_layer"):
        layer = tree.get_submodule(name)
        out, width = layer.weight.shape
        weight = torch.randn(out, width, generator=generator) / width**0.5
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(torch.zeros(out), requires_grad=False)
    tree.compute_device = torch.device("cpu")  # type: ignore[assignment]
    model = Model(FAMILY, tree, CONFIG, RandomText(), None, "random", "", (512, 512), CONFIG.shift)
    kept = Bands(mid=tuple(f"kept {_word(1000 + n)}" for n in range(KEPT)))
    named = [f"thing {_word(n)}" for n in range(count)]
    concepts = ConceptSet(tuple(Concept(name, irrelevant=kept) for name in named))
    return Task(model, concepts, folders=Folders(states=states))


def _word(number: int) -> str:
    """A word that is no inflection of another."""
    digits = [LETTERS[number // 26**place % 26] for place in range(3)]
    return "q" + "x".join(digits) + "k"


def measure(task: Task, name: str) -> dict[str, Any]:
    """Seconds of a whole run whose prompts are known."""
    began, used = time.perf_counter(), time.process_time()
    result = find_method(name).erase(task)
    assert result.eraser is not None
    assert all(tensor.isfinite().all() for tensor in result.eraser.tensors().values())
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_gb": round((peak_memory() or 0) / 1e9, 2),
    }


def main() -> None:
    closed = [name for name, m in methods().items() if not m.forward and m.made == "closed form"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=closed)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as states:
        task = make_task(options.concepts, Path(states))
        settings = spared(AnchoredSettings(), options.concepts)
        rows = {name: sum(map(len, found[:3:2])) for name, found in read(task, settings).items()}
        found = {name: measure(task, name) for name in options.methods}
    print(json.dumps({"concepts": options.concepts, "rows": rows, "methods": found}, indent=1))


if __name__ == "__main__":
    main()
