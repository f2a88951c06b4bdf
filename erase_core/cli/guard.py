"""``eraseanything guard``: a guard's file, which ``generate --guard`` takes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from ..errors import EraseError
from .concepts import add_source
from .models import add_model, open_model
from .output import add_out, check_out, say
from .train import find_concepts

HELP = "keep concepts out of pictures without training"
DESCRIPTION = """\
Write a guard: a small JSON file that keeps concepts out while a picture is drawn. No weight of the
model changes. dve takes the concept's direction out of every step. safree moves prompts off the
concept. sae learns, in minutes, which sparse features of prompts speak of the concept, and shuts
them. word-gate and velocity-gate decide how strongly an eraser (--lora) acts."""
EXAMPLES = """\
examples:
  eraseanything guard tiger --method dve --out tiger.json
  eraseanything guard tiger --method safree --set strength=0.8 reach=1 --out tiger.json
  eraseanything guard tiger --method sae --out tiger.json
      (writes tiger.guard.safetensors, too, what it learned)
  eraseanything guard tiger --method word-gate --lora tiger.safetensors --out gate.json
      (writes gate.guard.safetensors, too, a copy of the eraser)
  eraseanything generate --guard tiger.json --prompt "a tiger left of a car" --out guarded.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("concept", nargs="*", metavar="name", help="a concept, or several at once")
    parser.add_argument("--concepts", type=Path, metavar="FILE.json", help="or a concept set")
    add_source(parser)
    parser.add_argument(
        "--method", default="dve", metavar="NAME", help="dve (default), safree, sae, word-gate, ..."
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the method"
    )
    parser.add_argument(
        "--lora", type=Path, metavar="FILE", help="the eraser whose strength a gate decides"
    )
    add_model(parser)
    add_out(parser, "FILE.json", "the guard")


def run(args: argparse.Namespace) -> int:
    from ..erasers.guards.base import Guard, find_guard, weights_of
    from ..settings import read_pairs
    from ..tensors import read_tensors, refuse_unfinite

    if bool(args.concept) == bool(args.concepts):
        raise EraseError("Name a concept, or a concept set with --concepts.")
    method = find_guard(args.method)
    if args.lora and not method.eraser:
        raise EraseError(f"{method.label} takes no eraser; leave --lora out.")
    beside = args.lora or method.learn is not None
    written = [args.out, weights_of(args.out)] if beside else [args.out]
    _keep_inputs(written, [path for path in (args.lora, args.concepts) if path])
    check_out(args, written[:1], ".json")
    check_out(args, written[1:])
    settings = method.settings().changed(read_pairs(method.settings, args.set))
    eraser = read_tensors(args.lora) if args.lora else ({}, {})
    refuse_unfinite(eraser[0], str(args.lora))
    concepts = find_concepts(args)
    if method.learn is not None:
        eraser = method.learn(open_model(args, placed=False).text, concepts, settings), {}
    guard = Guard(method, concepts, settings, *eraser)
    guard.save(args.out)
    names = ", ".join(concept.name for concept in guard.concepts.concepts)
    say(args, guard.to_json(), f"{args.out}: {method.label} keeps out {names}.")
    return 0


def _keep_inputs(written: Iterable[Path], read: Iterable[Path]) -> None:
    """EraseError when a file would be written over that this command reads."""
    for out, source in product(written, read):
        if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
            raise EraseError(
                f"{out} would be written over {source}; choose another name for --out."
            )
