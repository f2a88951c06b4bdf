"""Make MiniFlux from nothing, in one command; what is there already is kept.

    python tools/miniflux/make.py --out out/miniflux            (about two hours on two cores)

Needs Debian's fonts-noto-color-emoji. Then the files go to erase_core/miniflux.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

import evaluate
import torch
import train_flux
import train_recogniser
import train_vae
from data import build
from export import export
from safetensors.torch import save_file
from train_tokenizers import train_clip, train_t5

from erase_core import miniflux
from erase_core.miniflux.captions import training_caption


def prepare(folder: Path, count: int, seed: int) -> None:
    """Render the world, encode it, train the tokenizers on its captions."""
    folder.mkdir(parents=True, exist_ok=True)
    world, latents, vae = build(count, seed)
    save_file(vae.state_dict(), folder / "vae_linear.safetensors")
    scenes = [asdict(scene) for scene in world.scenes]
    (folder / "scenes.json").write_text(json.dumps(scenes))
    rng = random.Random(seed)
    captions = [training_caption(scene, rng) for scene in world.scenes for _ in range(2)]
    train_t5(captions, folder / "t5xxl_tokenizer")
    train_clip(captions, folder / "clip_l_tokenizer")
    tensors = {"latents": latents, "pictures": torch.from_numpy(world.pictures)}
    save_file(tensors, folder / "world.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything on the way")
    parser.add_argument("--target", type=Path, default=miniflux.FOLDER, help="where the files go")
    parser.add_argument("--device", default="cpu", help="for the transformer's training")
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--distil-steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not (args.out / "world.safetensors").exists():
        prepare(args.out, args.pictures, args.seed)
    if not (args.out / "recogniser.safetensors").exists():
        train_recogniser.train(args.out, 1500, args.seed)
    if not (args.out / "vae.safetensors").exists():
        train_vae.train(args.out, 1000, args.seed)
    for stage in (
        train_flux.Stage("base", args.steps, 1e-3, 0.9, seed=args.seed, device=args.device),
        train_flux.Stage(
            "distil", args.distil_steps, 4e-4, 0.0, seed=args.seed + 1, device=args.device
        ),
    ):
        train_flux.train(args.out, stage)
    export(args.out, "distil", args.target)
    train_recogniser.test(args.target, args.seed)
    evaluate.main(["--folder", str(args.target), "--json", str(args.out / "quality.json")])


if __name__ == "__main__":
    main()
