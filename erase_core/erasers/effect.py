"""Did an eraser take effect? How much of its file was taken, and how far pictures moved."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

# Of each change of a weight in a file one tensor ends so, whoever wrote it.
_ONE = (
    ".lora_A.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight", ".diff",
    ".diff_b", ".hada_w1_a", ".lokr_w1",
)  # fmt: skip
SEEN = 1 / 255  # of the range: less is nothing that anybody sees


def changes(names: Iterable[str]) -> int:
    """How many changes of weights a file has, by the names of its tensors."""
    return sum(name.endswith(_ONE) for name in names)


def moved(before: Tensor, after: Tensor) -> float:
    """The mean distance of pictures in [0, 1] from others of the same seeds, as a share of the
    range."""
    return float((after.float() - before.float()).abs().mean())


def effect(taken: int, told: int, distance: float | None = None, strength: float = 1.0) -> str:
    """One line for a person: ``taken`` of a file's ``told`` changes are in the model, and its
    pictures moved by a ``distance`` at a ``strength``. Where nothing came of it: what to do."""
    of = f"{taken} of the file's {told} weights are patched"
    if not taken:
        return (
            f"No effect: none of the file's {told} weights is this model's; choose the eraser that "
            "was made for it."
        )
    if distance is None:
        return f"{of}; add 0 to the strengths to see how far pictures move."
    if distance < SEEN:
        return (
            f"Nothing changed: {of}, but no picture moved at strength {strength:g}; write the "
            "concept into the prompts, and take a model that does not carry the eraser already."
        )
    some = "Took effect" if taken >= told else "Took effect in part"
    return f"{some}: {of}, and pictures moved by {100 * distance:.1f} % at strength {strength:g}."
