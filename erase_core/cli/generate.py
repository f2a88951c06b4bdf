"""``eraseanything generate``: one picture, with or without an eraser."""

from __future__ import annotations

import argparse
from pathlib import Path

from .models import add_memory, add_model, add_sampling, ready_to_draw
from .output import add_out, check_out, save_picture, say
from .progress import Bar

HELP = "draw a picture, with or without an eraser"
DESCRIPTION = """\
Draw one picture. The same seed gives the same noise as ComfyUI's KSampler, so that pictures with
and without --lora differ by the eraser alone."""
EXAMPLES = """\
examples:
  eraseanything generate --prompt "a tiger left of a car" --seed 7 --out before.png
  eraseanything generate --prompt "a tiger left of a car" --seed 7 --lora tiger.safetensors \\
      --out after.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", required=True, help="what to draw")
    add_out(parser, "PNG", "the picture")
    add_sampling(parser)
    parser.add_argument(
        "--guard",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.json",
        help="guards, as the command guard writes them; they act from first to last",
    )
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    check_out(args, [args.out], ".png")
    from ..pictures import to_pictures

    model, cond, eraser = ready_to_draw(args, args.prompt, guards=args.guard)
    pixels = model.generate(
        cond,
        [args.seed],
        eraser,
        size=args.size,
        steps=args.steps,
        guidance=args.guidance,
        on_batch=Bar().phase("drawing", 1),
    )
    save_picture(args.out, to_pictures(pixels)[0])
    say(args, {"picture": str(args.out), "seed": args.seed}, f"{args.out}")
    return 0
