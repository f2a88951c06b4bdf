"""The command ``eraseanything``: reads the command line, runs a command, says what failed.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before all else: times count from the start of the process

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import ExitStack  # noqa: E402

from . import __version__  # noqa: E402
from .commands import (  # noqa: E402
    accept,
    attention,
    bench,
    concepts,
    demo,
    generate,
    inspect,
    train,
)
from .commands.signals import as_ctrl_c  # noqa: E402
from .errors import EraseError  # noqa: E402

COMMANDS = (demo, train, generate, attention, concepts, inspect, accept, bench)
FAILED, USAGE, CANCELLED = 1, 2, 130

DESCRIPTION = """\
Make a Flux model forget a concept. Training needs no pictures: a concept and words to keep are
enough. The result is a small LoRA file that ComfyUI and diffusers load."""

EXAMPLES = """\
first steps:
  eraseanything demo                          # erase "tiger" from the bundled MiniFlux, look at it
  eraseanything concepts tiger --out tiger.json
  eraseanything train --model miniflux --concept cat --out cat.safetensors
  eraseanything generate --lora cat.safetensors --prompt "a cat left of a car" --out cat.png

`eraseanything COMMAND --help` explains a command, with examples."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="eraseanything",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eraseanything {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(
            command.__name__.rsplit(".", 1)[1],
            usage=getattr(command, "USAGE", None),
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=getattr(command, "FORMATTER", argparse.RawDescriptionHelpFormatter),
        )
        command.add_arguments(sub)
        sub.add_argument(
            "--json", action="store_true", help="print the result as JSON on standard output"
        )
        sub.set_defaults(run=command.run, started=STARTED)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return the exit code.

    0 done, 1 failed (one sentence on standard error), 2 wrong usage, 130 cancelled by Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with as_ctrl_c(), ExitStack() as args.held:  # locks, see commands/output.py
            return args.run(args)
    except KeyboardInterrupt:
        return _fail(args, "Cancelled.", CANCELLED)
    except EraseError as error:
        return _fail(args, str(error), FAILED)
    except Exception as error:
        if os.environ.get("ERASE_DEBUG"):
            raise
        return _fail(args, _unexpected(error), FAILED)


def _unexpected(error: Exception) -> str:
    """A sentence for what nobody foresaw."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "The device has too little memory left; try --memory with fewer gigabytes than it has, "
            f"a smaller --batch or smaller pictures ({reason})."
        )
    return f"Unexpected failure: {reason} (set ERASE_DEBUG=1 to see where)."


def _fail(args: argparse.Namespace, sentence: str, code: int) -> int:
    print(f"eraseanything: {sentence}", file=sys.stderr)
    if args.json:
        print(json.dumps({"error": sentence}))
    return code
