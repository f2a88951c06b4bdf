"""``eraseanything attention``: where the words of a prompt land in the picture."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .models import add_memory, add_model, add_sampling, ready_to_draw
from .output import add_out, check_out, save_picture, say
from .progress import Bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.attention import WordMaps
    from ..models.base import Adapter, Conditioning, Model
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
    from ..erasers.load import refuse_encoders
    from ..pictures import heat_grid

    model, cond, eraser = ready_to_draw(args, args.prompt, probed=True)
    erasers: dict[str, Adapter | None] = {"without": None}
    if eraser is not None:
        refuse_encoders(eraser.tensors(), str(args.lora))
        erasers["with eraser"] = eraser
    options = {name: getattr(args, name) for name in ("size", "steps", "guidance", "blocks")}
    found = {
        label: maps(model, args.prompt, cond, args.words, args.seed, eraser, **options)
        for label, eraser in erasers.items()
    }
    rows = [heat_row(model, label, args.words, made) for label, made in found.items()]
    save_picture(args.out, heat_grid(rows, title=f"“{args.prompt}”"))
    peaks = {
        label: {word: round(float(m.raw[i].max()), 6) for i, word in enumerate(args.words)}
        for label, m in found.items()
    }
    say(args, {"picture": str(args.out), "highest": peaks}, f"{args.out}")
    return 0


def maps(
    model: Model,
    prompt: str,
    cond: Conditioning,
    words: Sequence[str],
    seed: int,
    eraser: Adapter | None,
    *,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    blocks: Sequence[int] | None = None,
) -> WordMaps:
    """Attention maps of ``words`` for one prompt, encoded as ``cond``, and one seed."""
    import torch

    from ..models.attention import word_maps

    family = model.family
    steps = family.steps if steps is None else steps
    return word_maps(
        model,
        model.noise([seed], size),
        model.sigmas(steps),
        cond,
        torch.stack([model.text.token_mask(prompt, word) for word in words]),
        family.guidance if guidance is None else guidance,
        eraser=eraser,
        blocks=blocks,
        on_step=Bar().phase("drawing", steps),
    )


def heat_row(model: Model, label: str, words: Sequence[str], made: WordMaps) -> HeatRow:
    """One row of the sheet: the picture and an overlay for each word."""
    from ..pictures import HeatRow, to_pictures

    picture = to_pictures(model.decode(made.latents))[0]
    return HeatRow(label, picture, dict(zip(words, made.raw, strict=True)))
