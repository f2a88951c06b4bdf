"""What processes of a cluster share: prompts that one of them has encoded."""

from __future__ import annotations

from typing import Any

import torch
from tiny import SETTINGS, WordText, make_model, run, same

from erase_core.cluster import Memory, share_of
from erase_core.models.base import TextEncoder
from erase_core.training.encoding import Remembered


class Here(dict[str, Any]):
    """As a cluster's memory, in this process."""

    size = 0

    def put(self, name: str, value: Any, size: int) -> None:
        self[name] = value
        self.size += size


def test_prompts_are_encoded_once_for_all_processes() -> None:
    shared, texts = Here(), [WordText(), WordText()]
    known: list[TextEncoder] = [Remembered(text, shared) for text in texts]
    first, second = (text.encode(["a tiger", "a dog"]) for text in known)
    assert [text.calls for text in texts] == [1, 0]
    assert torch.equal(first.context, second.context)
    assert shared.size == first.context.nbytes + first.pooled.nbytes  # type: ignore[union-attr]
    known[1].encode(["a tiger"])  # another batch, whose last bits may differ
    assert texts[1].calls == 1
    assert known[0].length == texts[0].length
    known[0].release()
    assert texts[0].released


def test_a_run_with_what_others_encoded_makes_the_same_eraser() -> None:
    shared = Here()
    plain = run().eraser.tensors()
    for text in (WordText(), WordText()):
        made = run(SETTINGS, model=make_model(text=Remembered(text, shared)))
        assert same(made.eraser.tensors(), plain)
    assert text.calls == 0


def test_a_cluster_forgets_what_is_old() -> None:
    memory = Memory(100)
    for name in "abc":
        memory.put(name, [name.upper()], 40)
    assert memory.get("a") is None and memory.get("b") == ["B"] and memory.get("c") == ["C"]
    memory.put("d", ["D"], 1000)
    assert [memory.get(name) for name in "abcd"] == [None] * 4


def test_a_share_of_a_card() -> None:
    assert share_of(0, 80e9) == 1.0 and share_of(100e9, 80e9) == 1.0
    assert share_of(36e9, 80e9) == 0.5 and share_of(1e6, 80e9) == 0.01
