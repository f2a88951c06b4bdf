"""Make MiniFlux from nothing, in one command; what is there already is kept.

    PYTHONPATH=. python tools/miniflux/make.py --out out/miniflux   (some hours on two cores)

Needs Debian's fonts-noto-color-emoji. Then the files go to erase_core/miniatures/miniflux.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import evaluate
import torch
import train_flux
import train_recogniser
import train_text
import train_vae
from data import build
from export import export
from safetensors.torch import save_file
from train_tokenizers import train_clip, train_t5

from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.captions import training_caption


def prepare(folder: Path, count: int, seed: int) -> None:
    """Render the world, encode it, train the tokenizers on its captions."""
    folder.mkdir(parents=True, exist_ok=True)
    world, latents, vae = build(count, seed)
    save_file(vae.state_dict(), folder / "vae_linear.safetensors")
    scenes = [asdict(scene) for scene in world.scenes]
    (folder / "scenes.json").write_text(json.dumps(scenes))
    rng = random.Random(seed)
    named = [scene for scene in world.scenes if scene.things]
    captions = [training_caption(scene, rng) for scene in named for _ in range(2)]
    train_t5(captions, folder / "t5xxl_tokenizer")
    train_clip(captions, folder / "clip_l_tokenizer")
    tensors = {"latents": latents, "pictures": torch.from_numpy(world.pictures)}
    save_file(tensors, folder / "world.safetensors")


def stages(args: argparse.Namespace) -> list[train_flux.Stage]:
    """The transformer's trainings, each going on from the one before."""
    base = train_flux.Stage(
        "base", args.steps, 1e-3, short=0.95, seed=args.seed, device=args.device
    )
    pairs = _after(base, "pairs", args.pairs_steps, lr=6e-4, pairs=3)
    layout = _after(pairs, "layout", args.layout_steps, lr=8e-4, shift=0.8)
    sides = _after(layout, "sides", args.sides_steps, sides=3, shift=1.0)
    whole = _after(sides, "all", args.all_steps, short=0.35, pairs=2, shifted=0.5)
    distil = _after(whole, "distil", args.distil_steps, lr=5e-4, short=0, shift=0.8, shifted=0.7)
    guide = _after(
        distil, "guide", args.guide_steps, lr=6e-4, pairs=2, sides=3, shift=1, shifted=0.5
    )
    return [base, pairs, layout, sides, whole, distil, guide]


def _after(stage: train_flux.Stage, name: str, steps: int, **changes: float) -> train_flux.Stage:
    """A stage that goes on from another's weights, like it but for ``changes``."""
    return replace(stage, name=name, start=stage.name, steps=steps, seed=stage.seed + 1, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything on the way")
    parser.add_argument("--target", type=Path, default=miniflux.FOLDER, help="where the files go")
    parser.add_argument("--device", default="cpu", help="for the transformer's training")
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--text-steps", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--pairs-steps", type=int, default=1400)
    parser.add_argument("--layout-steps", type=int, default=1800)
    parser.add_argument("--sides-steps", type=int, default=1200)
    parser.add_argument("--all-steps", type=int, default=2500)
    parser.add_argument("--distil-steps", type=int, default=600)
    parser.add_argument("--guide-steps", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.out / "world.safetensors").exists():
        prepare(args.out, args.pictures, args.seed)
    if not (args.out / "recogniser.safetensors").exists():
        train_recogniser.train(args.out, args.seed)
    if not (args.out / "vae.safetensors").exists():
        train_vae.train(args.out, 2500, args.seed)
    if not (args.out / "text.safetensors").exists():
        train_text.train(args.out, args.text_steps, args.seed)
    for stage in stages(args):
        train_flux.train(args.out, stage)
    export(args.out, "guide", args.target)
    train_recogniser.test(args.target, args.seed)
    evaluate.main(["--folder", str(args.target), "--json", str(args.out / "quality.json")])


if __name__ == "__main__":
    main()
