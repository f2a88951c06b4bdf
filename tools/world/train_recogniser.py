"""Train a recogniser on renders, spoiled ones among them, and say how often it is right.

python -m tools.world.train_recogniser --out FOLDER --build exam|second|align [--steps N]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from erase_core.files import atomic

from .data import cuts, draw, read_pictures, read_scenes, to_float
from .recogniser import HEADS, Recogniser, build, labels

BATCH = 64
HELD_OUT_SEED = 999_000_000


def load(folder: Path, name: str) -> Recogniser:
    """A trained recogniser, to judge with."""
    model = build(name)
    state = load_file(folder / f"recogniser_{name}.safetensors")
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    return model.eval().requires_grad_(False)


def spoil(x: Tensor, want: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
    """Make pictures (changed in place) as a model in training draws them, and their targets.

    A quarter is softly blurred, all get some noise. A tenth is mush: blurred or shuffled so far
    that nothing is there any more; its number and layout are open.
    """
    n = len(x)
    roll = torch.rand(n, generator=rng)
    soft, mush = roll < 0.25, roll > 0.9
    for factor, rows in ((2, soft & (roll < 0.15)), (3, soft & (roll >= 0.15))):
        if rows.any():
            x[rows] = _blur(x[rows], factor)
    blurred, shuffled = mush & (roll < 0.94), mush & (roll >= 0.94)
    if blurred.any():
        x[blurred] = _blur(x[blurred], 24)
    if shuffled.any():
        x[shuffled] = _shuffle(x[shuffled], rng)
    level = 0.08 * torch.rand(n, 1, 1, 1, generator=rng)
    x.add_(torch.randn(x.shape, generator=rng) * level).clamp_(0, 1)
    want = {name: target.clone() for name, target in want.items()}
    want["entities"][mush] = 0
    for name in ("artist", "number", "layout", "ground"):
        want[name][mush] = -1
    return want


def _blur(x: Tensor, factor: int) -> Tensor:
    small = F.interpolate(x, size=(128 // factor, 128 // factor), mode="area")
    return F.interpolate(small, size=(128, 128), mode="bilinear")


def _shuffle(x: Tensor, rng: torch.Generator) -> Tensor:
    """Blocks of 16 px in a chance order."""
    blocks = x.unflatten(2, (8, 16)).unflatten(4, (8, 16)).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    blocks = blocks[torch.randperm(64, generator=rng)]
    return blocks.unflatten(0, (8, 8)).permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def loss_of(model: Recogniser, x: Tensor, want: dict[str, Tensor]) -> Tensor:
    seen = model(x.contiguous(memory_format=torch.channels_last))
    loss = 60 * F.binary_cross_entropy_with_logits(seen.entities, want["entities"])
    for name in HEADS:
        known = want[name] >= 0
        if known.any():
            loss = loss + 0.5 * F.cross_entropy(seen.heads[name][known], want[name][known])
    return loss


@torch.no_grad()
def accuracy(model: nn.Module, pictures: np.ndarray, want: dict[str, Tensor]) -> dict[str, float]:
    """Share of pictures with exactly the right entities, and of right answers of each head."""
    hits: dict[str, list[Tensor]] = {name: [] for name in ("entities", *HEADS)}
    for part in cuts(len(pictures), 100):
        seen = model(to_float(pictures[part]))
        hits["entities"].append(((seen.entities > 0).float() == want["entities"][part]).all(1))
        for name in HEADS:
            known = want[name][part] >= 0
            hits[name].append((seen.heads[name].argmax(1) == want[name][part])[known])
    return {name: torch.cat(h).float().mean().item() for name, h in hits.items()}


def train(folder: Path, name: str, steps: int, seed: int = 1, lr: float = 3e-3) -> None:
    """One cycle of the learning rate, from what an earlier one wrote; writes
    ``recogniser_NAME.safetensors`` and ``.json`` (accuracies)."""
    torch.manual_seed(seed)
    pictures, want = read_pictures(folder), labels(read_scenes(folder))
    known = (folder / f"recogniser_{name}.safetensors").exists()
    model = load(folder, name).train().requires_grad_(True) if known else build(name)
    model = model.to(memory_format=torch.channels_last)
    lr = lr if name != "second" else lr / 2
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    rng, generator, began = random.Random(seed), torch.Generator().manual_seed(seed), time.time()
    for step in range(1, steps + 1):
        rows = sorted(rng.sample(range(len(pictures)), BATCH))
        x, told = to_float(pictures[rows]), {key: target[rows] for key, target in want.items()}
        if name != "align":
            told = spoil(x, told, generator)
        loss = loss_of(model, x, told)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            pace = (time.time() - began) / step
            print(f"{name} {step}/{steps} loss {loss.item():.3f} {pace:.2f} s", flush=True)
        if step % 200 == 0 or step == steps:
            save(folder, name, model)
    test(folder, name)


def save(folder: Path, name: str, model: nn.Module) -> None:
    state = {
        key: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
    }
    with atomic(folder / f"recogniser_{name}.safetensors") as temporary:
        save_file(state, temporary)


def test(folder: Path, name: str, count: int = 2000) -> None:
    """Accuracy on renders that no training saw."""
    model = load(folder, name)
    pictures, scenes = draw(HELD_OUT_SEED, folder / "sprites.npz", count)
    result = accuracy(model, pictures, labels(scenes))
    (folder / f"recogniser_{name}.json").write_text(json.dumps(result, indent=1))
    print(name, {key: round(value, 4) for key, value in result.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--build", required=True, choices=("exam", "second", "align"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    train(args.out, args.build, args.steps, args.seed)


if __name__ == "__main__":
    main()
