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
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import ExitStack  # noqa: E402

from .. import __version__  # noqa: E402
from . import (  # noqa: E402
    accept,
    attention,
    bench,
    concepts,
    demo,
    generate,
    guard,
    inspect,
    many,
    methods,
    train,
)
from .output import note, sentence, standard_streams, tell  # noqa: E402
from .signals import as_ctrl_c  # noqa: E402

COMMANDS = (
    demo,
    train,
    many,
    generate,
    guard,
    attention,
    concepts,
    methods,
    inspect,
    accept,
    bench,
)
FAILED, USAGE, CANCELLED = 1, 2, 130
LONGEST = 2000  # characters of a sentence: a name in it may be a whole file

DESCRIPTION = """\
Make FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 or Chroma forget a concept. Training needs
no pictures: a concept and words to keep are enough. The result is a small LoRA file that ComfyUI
and diffusers load."""

EXAMPLES = """\
first steps:
  eraseanything demo                          # erase "tiger" from the bundled MiniFlux, look at it
  eraseanything concepts tiger --out tiger.json
  eraseanything train --model miniflux --concept cat --out cat.safetensors
  eraseanything generate --lora cat.safetensors --prompt "a cat left of a car" --out cat.png

`eraseanything COMMAND --help` explains a command, with examples."""


class Parser(argparse.ArgumentParser):
    """Refuses blank values, of which an empty path would be this folder; a prompt may be blank."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        told = list(sys.argv[1:] if args is None else args)
        option = "an argument"
        for word in told:
            name, equals, value = word.partition("=")
            is_option = name.startswith("--")
            option = name if is_option else option
            if not (value if is_option and equals else word).strip() and option != "--prompt":
                self.error(f"{option} is blank; give it a value, or leave it out")
        return super().parse_known_args(told, namespace)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
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
    with standard_streams():
        parser = build_parser()
        args = parser.parse_args(argv)
        _refuse_broken_text(parser, args)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            with as_ctrl_c(), ExitStack() as args.held:  # locks, see cli/output.py
                return args.run(args)
        except KeyboardInterrupt:
            return _fail(args, "Cancelled.", CANCELLED)
        except Exception as error:
            if os.environ.get("ERASE_DEBUG"):
                note(traceback.format_exc())
            return _fail(args, sentence(error), FAILED)


def _refuse_broken_text(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Paths may hold any byte; words go to tokenizers and into files, and must be whole text."""
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
                parser.error(f"--{name.replace('_', '-')} is no whole UTF-8 text")
        if name == "prompt" and value == []:
            parser.error("--prompt needs a value")  # argparse takes "--prompt=--" for none


def _fail(args: argparse.Namespace, text: str, code: int) -> int:
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    note(f"eraseanything: {line}")
    if args.json:
        tell(json.dumps({"error": line}))
    return code
