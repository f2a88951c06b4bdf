"""What the tests of every family's commands share: short trainings, small pictures."""

from __future__ import annotations

import json
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


def of_files(transformer: Path, pipeline: Path) -> list[str]:
    """The options that name a model by its files: encoder, VAE and tokenizer are a pipeline's."""
    named = {"qwen": pipeline / "text_encoder", "vae": pipeline / "vae", "tokenizers": pipeline}
    argv = [str(word) for flag, path in named.items() for word in (f"--{flag}", path)]
    return ["--model", str(transformer), *argv]


def draw(folder: Path, base: list[str], *more: str) -> bytes:
    """A picture of a tiger."""
    out = folder / "drawn.png"
    argv = ["generate", *base, "--prompt", "a tiger", *DRAW, "--out", str(out)]
    assert main([*argv, "--overwrite", *more]) == 0
    return Image.open(out).tobytes()


def near(a: bytes, b: bytes) -> bool:
    """The same picture, but for rounding: weights in other places of memory."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1


def maps_guards_and_acceptance(family: str, folder: Path, base: list[str]) -> None:
    """Draws maps and with a guard, and lets ``accept`` try all out."""
    out = folder / "map.png"
    words = ["--prompt", "a tiger and a car", "--words", "tiger", "car", *DRAW]
    assert main(["attention", *base, *words, "--out", str(out)]) == 0 and out.is_file()
    guard = folder / "guard.json"
    argv = ["guard", "--concepts", str(folder / "tiger.json"), "--out", str(guard)]
    argv += ["--set", "words=false"]  # a toy's states tell no words apart
    assert main(argv) == 0
    assert draw(folder, base, "--guard", str(guard)) != draw(folder, base)
    accepted = folder / "accepted"
    argv = ["accept", *base, "--steps", "2", "--draw-steps", "2", "--size", "32x48"]
    assert main([*argv, "--out", str(accepted)]) == 0
    report = json.loads((accepted / "report.json").read_text())
    assert report["velocity"]["agrees"] and report["velocity"]["relative_difference"] < 0.001
    assert report["files"]["model"]["family"] == family


def rollouts_of_a_distilled_model(
    version: str, folder: Path, base: list[str], distilled: list[str]
) -> tuple[float, int]:
    """Guidance and steps of training states on a distilled model, which draws without a negative
    prompt what its base model draws at a guidance of 1."""
    short = [flag for flag in SHORT if "rollout-steps" not in flag]
    train(version, folder, distilled, "distilled", *short)
    _, metadata = read_tensors(folder / "distilled.safetensors")
    settings = json.loads(metadata["erase.settings"])
    unguided = draw(folder, distilled)
    assert near(unguided, draw(folder, base, "--guidance", "1"))
    assert not near(unguided, draw(folder, base))
    return settings["guidance_rollout"], settings["rollout_steps"]
