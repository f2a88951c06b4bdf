"""Keep a training that is not done where it is not lost with its machine, and take it up again.

    python -m tools.world.keep --out FOLDER            # into tools/world/kept
    python -m tools.world.keep --out FOLDER --back     # and from there

What is kept is what training cannot make again in minutes: both text encoders (float16), the
averaged transformer (bfloat16) with its step, and the recognisers. ``train_flux --fresh`` goes on
from the average.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from erase_core.files import atomic

KEPT = Path(__file__).parent / "kept"
WEIGHTS = {
    "text": torch.float16,
    "flux": torch.bfloat16,
    "recogniser_align": torch.float16,
    "recogniser_exam": torch.float16,
    "recogniser_second": torch.float16,
}
TOKENIZERS = ("clip_l_tokenizer", "t5xxl_tokenizer")
SHARED = "t5.encoder.embed_tokens.weight"  # the same tensor as t5.shared.weight


def keep(folder: Path, target: Path) -> None:
    """Copy what is there of WEIGHTS, narrowed, and the tokenizers."""
    target.mkdir(parents=True, exist_ok=True)
    for name, dtype in WEIGHTS.items():
        if (folder / f"{name}.safetensors").exists():
            tensors = load_file(folder / f"{name}.safetensors")
            tensors.pop(SHARED, None)
            _save(target / f"{name}.safetensors", tensors, dtype)
    for name in TOKENIZERS:
        shutil.copytree(folder / name, target / name, dirs_exist_ok=True)


def back(folder: Path, source: Path) -> None:
    """The files of a training folder from those that were kept; recognisers stay narrow."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.safetensors")):
        tensors = load_file(path)
        if "t5.shared.weight" in tensors:
            tensors[SHARED] = tensors["t5.shared.weight"].clone()
        wide = torch.float16 if path.stem.startswith("recogniser") else torch.float32
        _save(folder / path.name, tensors, wide)
    for name in TOKENIZERS:
        shutil.copytree(source / name, folder / name, dirs_exist_ok=True)


def _save(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    cast = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    with atomic(path) as temporary:
        save_file(cast, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--back", action="store_true")
    args = parser.parse_args()
    if args.back:
        back(args.out, KEPT)
    else:
        keep(args.out, KEPT)


if __name__ == "__main__":
    main()
