"""Which sentences a run's pictures are of."""

from __future__ import annotations

from erase_core.training.preview import _plainest


def test_the_plainest_sentence_counts_nothing() -> None:
    texts = ["a robot inside a tiger", "three tigers", "a tiger on a red ground", "many tigers"]
    assert texts[_plainest(range(4), texts)] == "a robot inside a tiger"
    assert texts[_plainest([1, 2, 3], texts)] == "a tiger on a red ground"
    assert texts[_plainest([1], texts)] == "three tigers"
