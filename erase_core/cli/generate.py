"""``eraseanything generate``: one picture, with or without an eraser."""

from __future__ import annotations

import argparse

from .models import add_memory, add_model, add_sampling, open_eraser, ready_to_draw
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
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    check_out(args, [args.out], ".png")
    from ..pictures import to_pictures

    model, cond = ready_to_draw(args, args.prompt)
    pixels = model.generate(
        cond,
        [args.seed],
        open_eraser(args, model),
        size=args.size,
        steps=args.steps,
        guidance=args.guidance,
        on_batch=Bar().phase("drawing", 1),
    )
    save_picture(args.out, to_pictures(pixels)[0])
    say(args, {"picture": str(args.out), "seed": args.seed}, f"{args.out}")
    return 0
