"""``eraseanything attention``: where the words of a prompt land in the picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .models import (
    add_memory,
    add_model,
    add_sampling,
    open_bundle,
    open_lora,
    require_vae,
    settle_to_draw,
)
from .output import add_out, check_out, save_picture, say
from .progress import Bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..attention import WordMaps
    from ..bundle import Bundle
    from ..flux.forward import Conditioning, Lora
    from ..pictures import HeatRow

HELP = "show where the words of a prompt land in the picture"
DESCRIPTION = """\
Draw a picture and lay over it, for each word, the share of attention that each place pays to it.
With --lora there is a second row with the eraser, on the same colour scale."""
EXAMPLES = """\
examples:
  eraseanything attention --prompt "a tiger left of a car" --words tiger car --out words.png
  eraseanything attention --prompt "a tiger left of a car" --words tiger car \\
      --lora tiger.safetensors --blocks 2 --out words.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("--words", required=True, nargs="+", help='words, or "several together"')
    add_out(parser, "PNG", "the sheet")
    parser.add_argument(
        "--blocks", type=int, nargs="+", metavar="N", help="double blocks (default: all)"
    )
    add_sampling(parser)
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    check_out(args, [args.out], ".png")
    from ..pictures import heat_grid

    bundle = open_bundle(args, placed=False)
    require_vae(bundle)
    cond = bundle.text.encode([args.prompt])
    bundle.text.release()
    settle_to_draw(args, bundle, args.size or bundle.size, probed=True)
    loras: dict[str, Lora | None] = {"without": None}
    if args.lora:
        loras["with eraser"] = open_lora(args, bundle)
    found = {
        label: maps(bundle, args.prompt, cond, args.words, args.seed, lora, args)
        for label, lora in loras.items()
    }
    rows = [heat_row(bundle, label, args.words, made) for label, made in found.items()]
    save_picture(args.out, heat_grid(rows, title=f"“{args.prompt}”"))
    peaks = {
        label: {word: round(float(m.raw[i].max()), 6) for i, word in enumerate(args.words)}
        for label, m in found.items()
    }
    say(args, {"picture": str(args.out), "highest": peaks}, f"{args.out}")
    return 0


def maps(
    bundle: Bundle,
    prompt: str,
    cond: Conditioning,
    words: Sequence[str],
    seed: int,
    lora: Lora | None,
    args: argparse.Namespace,
) -> WordMaps:
    """Attention maps of ``words`` for one prompt, encoded as ``cond``, and one seed."""
    import torch

    from ..attention import word_maps
    from ..flux.sampling import noise, sigmas

    height, width = args.size or bundle.size
    return word_maps(
        bundle.tree,
        noise(seed, 1, height, width),
        sigmas(args.steps, bundle.shift_mu),
        cond,
        torch.stack([bundle.text.token_mask(prompt, word) for word in words]),
        args.guidance,
        lora=lora,
        blocks=args.blocks,
        on_step=Bar().phase("drawing", args.steps),
    )


def heat_row(bundle: Bundle, label: str, words: Sequence[str], made: WordMaps) -> HeatRow:
    """One row of the sheet: the picture and an overlay for each word."""
    from ..pictures import HeatRow, to_pictures

    picture = to_pictures(bundle.decode(made.latents))[0]
    return HeatRow(label, picture, dict(zip(words, made.raw, strict=True)))
