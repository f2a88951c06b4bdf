"""Render the training pictures and write what they show beside them.

    python -m tools.world.data --out FOLDER [--count 36000] [--seed 1]

Writes ``pictures.npy`` (N, 128, 128, 3) uint8 and ``scenes.json``.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .render import SIZE, Sprites, render
from .scene import Scene, random_scene

CHUNK = 500


@cache
def sprites(path: Path) -> Sprites:
    return Sprites.load(path)


def draw(seed: int, path: Path, count: int = CHUNK) -> tuple[np.ndarray, list[Scene]]:
    """``count`` random scenes with their pictures, the same for the same seed."""
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    pictures = [np.asarray(render(scene, sprites(path), rng)) for scene in scenes]
    return np.stack(pictures), scenes


def write(folder: Path, count: int, seed: int) -> None:
    """Render ``count`` pictures, a multiple of CHUNK, on all cores."""
    path = folder / "sprites.npz"
    temporary = folder / "pictures.part.npy"
    shape = (count, SIZE, SIZE, 3)
    pictures = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
    scenes: list[Scene] = []
    with ProcessPoolExecutor() as pool:
        seeds = range(seed * 1_000_000, seed * 1_000_000 + count // CHUNK)
        for part, told in pool.map(partial(draw, path=path), seeds):
            pictures[len(scenes) : len(scenes) + CHUNK] = part
            scenes += told
    pictures.flush()
    (folder / "scenes.json").write_text(json.dumps([asdict(scene) for scene in scenes]))
    temporary.replace(folder / "pictures.npy")


def read_scenes(folder: Path) -> list[Scene]:
    rows = json.loads((folder / "scenes.json").read_text())
    tuples = ("subjects", "spooky")
    return [Scene(**(row | {name: tuple(row[name]) for name in tuples})) for row in rows]


def read_pictures(folder: Path) -> np.ndarray:
    """All pictures, mapped to the file."""
    return np.load(folder / "pictures.npy", mmap_mode="r")


def to_float(pictures: np.ndarray) -> Tensor:
    """(N, 128, 128, 3) uint8 -> (N, 3, 128, 128) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def cuts(count: int, size: int) -> Iterable[slice]:
    """Slices of ``size`` that cover ``count`` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=36_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write(args.out, args.count, args.seed)


if __name__ == "__main__":
    main()
