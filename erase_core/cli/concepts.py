"""``eraseanything concepts``: words around a concept, for a file that ``train`` takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .numbers import HIGHEST_SEED, whole
from .output import add_overwrite, check_out, say

HELP = "find synonyms and irrelevant words for concepts"
DESCRIPTION = """\
Write a concept set: concepts, their synonyms (erased with them) and irrelevant words (kept). These
stand in four bands: none and far have little to do with it, mid is related, near are its siblings.
Words come from the shipped lists (artists, public figures, brands, everyday things) or from
WordNet. The file is plain JSON: edit it as you like, then give it to `train --concepts`."""
EXAMPLES = """\
examples:
  eraseanything concepts tiger --out tiger.json
  eraseanything concepts tiger "Claude Monet" --out both.json
  eraseanything concepts crane --senses              # which meanings are there?
  eraseanything concepts crane --sense crane.n.04 -k 5 --out crane.json
  eraseanything concepts --list                      # concepts that need no WordNet"""
PER_BAND = 6

if TYPE_CHECKING:
    from ..concepts.sets import ConceptSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="name", help="a concept, or several at once")
    parser.add_argument(
        "-k",
        type=whole(0, 1000),
        default=PER_BAND,
        help=f"irrelevant words in each band (default {PER_BAND})",
    )
    add_source(parser)
    parser.add_argument("--senses", action="store_true", help="only show WordNet's meanings")
    parser.add_argument("--list", action="store_true", help="only show the shipped concepts")
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="of the choice of words (default 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="default: print")
    add_overwrite(parser)


def add_source(parser: Any) -> None:
    """``--kind`` and ``--sense``: which meaning of a name is meant."""
    add_kind(parser)
    parser.add_argument("--sense", help="WordNet's meaning, e.g. tiger.n.02")


def add_kind(parser: Any) -> None:
    """``--kind``."""
    parser.add_argument(
        "--kind",
        choices=("entity", "abstraction", "relationship"),
        help="what the concept is (default: as the lists say, else entity)",
    )


def run(args: argparse.Namespace) -> int:
    if args.list:
        return _list(args)
    if not args.names:
        raise EraseError("Name a concept, or --list to see the shipped ones.")
    if args.senses:
        return _senses(args)
    if args.k < 1:
        raise EraseError("-k must be at least 1.")
    from ..concepts.find import describe

    if args.out:
        check_out(args, [args.out], ".json")
    concepts = look_up(args.names, args, args.k, args.seed)
    if not args.out:
        plain = json.dumps(concepts.to_json(), indent=2, ensure_ascii=False)
        say(args, concepts.to_json(), plain, only=True)
        return 0
    concepts.save(args.out)
    told = [line for concept in concepts.concepts for line in describe(concept)]
    say(args, concepts.to_json(), *told, f"Written to {args.out}.")
    return 0


def look_up(
    names: Sequence[str], args: argparse.Namespace, k: int = PER_BAND, seed: int = 0
) -> ConceptSet:
    """The named concepts with their words; ``--sense`` can only speak of a single one."""
    from ..concepts.find import find_concept
    from ..concepts.sets import ConceptSet

    if len(names) > 1 and args.sense:
        raise EraseError(f"Several concepts cannot share one --sense ({args.sense}); leave it out.")
    return ConceptSet.together(
        find_concept(name, args.kind, args.sense, k, seed)[0] for name in names
    )


def _senses(args: argparse.Namespace) -> int:
    from ..concepts.sources.wordnet import senses

    name = " ".join(args.names)
    found = senses(name, args.kind or "entity")
    if not found:
        raise EraseError(f'WordNet does not know "{name}" as {args.kind or "entity"}.')
    plain = [{"sense": sense.name, "definition": sense.definition} for sense in found]
    say(
        args,
        {"senses": plain},
        *(f"{sense.name:<20} {sense.definition}" for sense in found),
        only=True,
    )
    return 0


def _list(args: argparse.Namespace) -> int:
    from ..concepts.sources.lists import lists

    found = lists()
    plain = {name: list(concepts) for name, concepts in found.items()}
    say(
        args,
        {"lists": plain},
        *(f"{name}: {', '.join(c)}\n" for name, c in found.items()),
        only=True,
    )
    return 0
