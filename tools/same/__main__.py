"""Does this tree still do what an older revision did, byte for byte?

Runs the command line of both on this machine, one thread each, with every word and every setting
spelled out, and compares what they write: tensors, metadata, pictures, exam answers, losses.

    python tools/same --cache out/same                 # all cases; the old side runs once
    python tools/same --cache out/same --only thing pictures
    python tools/same --cache out/same --fill          # only the old side
    python tools/same --cache out/same --new OTHER     # another checkout, or a revision

Cases: ``thing``, ``colour``, ``relation``, ``five-demo`` and ``five-train`` (settings of ``demo``
and of ``train`` for five things), ``switches`` (the other value of every switch), ``resumed``,
``pictures`` (generate, attention, inspect; with the old tree's eraser on both sides), ``exam``
(the judge's answers on the whole miniature), and ``bench-...``: the eraser and the answers of
every method of the benchmark, few iterations, ``combine`` among them as ``ours-combined``.

The trees are run from copies, through ``python -m erase_core`` alone, so modules may move. In the
copies of the ``bench-...`` cases the miniature keeps one double and one single block, to be quick.
A CPU without AVX-512 multiplies bfloat16 matrices up to sixty times more slowly than float32 ones.
There both sides multiply in float32 and round to bfloat16; ``--native`` leaves torch as it is.

Set aside, by name: seconds, memory, dates, versions, paths, a file's method, the base's hash
(ASIDE; ``--aside KEY`` adds to it).
Exit code 1 when anything differs or fails.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from cases import cases, write_words
from differences import difference
from trees import Tree

ROOT = Path(__file__).parents[2]
REVISION = "2ba44d4"
ASIDE = {
    *("seconds", "peak_bytes", "peak_memory_bytes"),
    *("versions", "erase.versions", "erase.date"),
    *("file", "lora", "picture"),  # paths
    # New since the old revision, in commits that say so: a file names its method and all else that
    # went into it; MiniFlux's own file carries presets, so its hash is another.
    *("erase.method", "erase.base_sha256", "ss_new_sd_model_hash"),
    *(
        "erase.base_weights",
        "erase.history",
        "erase.pictures",
        "erase.text_tokens",
        "erase.threads",
    ),
}


def read_arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for both sides")
    parser.add_argument("--old", default=REVISION, help=f"revision (default {REVISION})")
    parser.add_argument(
        "--new", default=str(ROOT), help="checkout or revision (default: this checkout)"
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases")
    parser.add_argument("--fill", action="store_true", help="only run the old side")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time (default 1)")
    parser.add_argument("--native", action="store_true", help="leave torch's products alone")
    parser.add_argument("--aside", nargs="+", default=[], metavar="KEY", help="not compared either")
    return parser.parse_args()


def main() -> int:
    args = read_arguments()
    kind = f"{args.old}-torch{torch.__version__}{'-native' if args.native else ''}"
    cache = args.cache.resolve() / kind
    old, new = (Tree(cache / side, args.native) for side in ("old", "new"))
    write_words(cache / "words")
    known = cases(cache / "words", old.case("thing") / "lora.safetensors")
    if unknown := set(args.only or ()) - known.keys():
        sys.exit(f"There is no case {min(unknown)}; choose from {', '.join(known)}.")
    chosen = args.only or list(known)
    needed = ["thing", *chosen] if "pictures" in chosen else chosen
    missing = {name: known[name] for name in needed if not old.has(name, known[name])}
    if missing and not old.copied():
        old.copy(ROOT, args.old)
    if "thing" in missing:
        old.run("thing", missing.pop("thing"))
    if not args.fill:
        new.copy(ROOT, args.new)

    def compare(name: str) -> str:
        if name in missing:
            old.run(name, missing[name])
        if args.fill:
            return ""
        new.run(name, known[name])
        return difference(old.case(name), new.case(name), ASIDE | set(args.aside))

    differ = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, what in zip(chosen, pool.map(compare, chosen), strict=True):
            verdict = f"different  {what}" if what else "filled" if args.fill else "same"
            print(f"{name:<16} {verdict}", flush=True)
            differ += bool(what)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
