"""What the tests of every family's commands share: short trainings, small pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from erase_core.cli.main import main
from erase_core.tensors import read_tensors

SHORT = ["--steps=2", "--batch=2", "--rank=2", "--rollout-steps=2", "--erase-rollouts=2"]
SHORT += ["--keep-rollouts=2", "--width=32", "--height=48"]
DRAW = ["--size", "32x48", "--steps", "2", "--seed", "3"]


def train(version: str, folder: Path, base: list[str], name: str, *more: str) -> dict[str, Tensor]:
    """The tensors of ``folder/name.safetensors``, trained on ``folder/tiger.json``, which says that
    it is for such a ``version`` of models."""
    out = folder / f"{name}.safetensors"
    argv = ["train", *base, "--concepts", str(folder / "tiger.json"), "--out", str(out), *more]
    assert main(argv) == 0
    tensors, metadata = read_tensors(out)
    assert metadata["ss_base_model_version"] == version
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    return tensors


def draw(folder: Path, base: list[str], *more: str) -> bytes:
    """A picture of a tiger."""
    out = folder / "drawn.png"
    argv = ["generate", *base, "--prompt", "a tiger", *DRAW, "--out", str(out)]
    assert main([*argv, "--overwrite", *more]) == 0
    return Image.open(out).tobytes()


def near(a: bytes, b: bytes) -> bool:
    """The same picture, but for rounding: weights in other places of memory."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1
