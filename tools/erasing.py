"""Erase several concepts from MiniFlux, examine every eraser, and print the table.

    python tools/erasing.py --out out/erasing --concepts car red "left of"
    python tools/erasing.py --out out/erasing --concepts car --label qkv \\
        --set targets=add_q_proj,add_k_proj,add_v_proj

Every eraser is one JSON file in OUT/LABEL; what is there already is kept, so the work can be split
over several processes (one thread each is the best use of a CPU) and taken up again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from erase_core import miniflux
from erase_core.bundle import Bundle
from erase_core.commands.progress import Bar
from erase_core.concepts.sets import ConceptSet
from erase_core.files import write_json
from erase_core.metrics.recogniser import Recogniser
from erase_core.miniflux.concepts import concept
from erase_core.miniflux.exam import Exam
from erase_core.miniflux.judge import kind_of
from erase_core.training import Trainer, TrainSettings

# Column -> score, and how far it may be off; "drop" counts from the untouched model.
BARS = {
    "acc_e": ("acc_e", "at most 5"),
    "acc_g": ("acc_g", "at most 10"),
    "seen": ("acc_g_seen", ""),
    "acc_ir": ("acc_ir", "drop at most 3"),
    "near": ("acc_near", ""),
    "beside": ("acc_companion", "drop at most 5"),
    "alive": ("recognised_when_erased", ""),
}


def settings_from(pairs: Iterable[str]) -> TrainSettings:
    """The demo's settings with ``name=value`` changes."""
    known = {field.name: field.default for field in fields(TrainSettings)}
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        words = isinstance(known[name], tuple)
        try:
            changes[name] = tuple(text.split(",")) if words else json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return replace(miniflux.demo_settings(), **changes)


def untouched(folder: Path, exam: Exam, bundle: Bundle, judge: Recogniser, bar: Bar) -> Any:
    """The base model's marks, made once for all labels."""
    path = folder / "untouched" / f"{exam.concept}-{len(exam.roles['erased'])}.json"
    if not path.exists():
        marks = exam.sit(bundle, judge, on_batch=bar.phase("exam before", len(exam.cases())))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, marks.to_dict())
    return json.loads(path.read_text())


def measure(name: str, args: argparse.Namespace, bundle: Bundle, judge: Recogniser) -> dict:
    """Train one eraser, examine it, and say how it went."""
    bar = Bar()
    began = time.perf_counter()
    settings = settings_from(args.set)
    concepts = ConceptSet((concept(name),))
    result = Trainer(bundle.tree, bundle.config, bundle.text, concepts, settings, on_step=bar).run()
    seconds = time.perf_counter() - began
    exam = Exam.of(name, args.exam, args.seed)
    marks = exam.sit(bundle, judge, result.lora, on_batch=bar.phase("exam", len(exam.cases())))
    before = untouched(args.out, exam, bundle, judge, bar)
    result.lora.save(args.out / args.label / f"{name}.safetensors", {})
    return {
        "concept": name,
        "kind": kind_of(name),
        **marks.to_dict(),
        "untouched": before,
        "pictures": len(exam.cases()),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "settings": settings.to_dict(),
    }


def table(rows: list[dict]) -> str:
    """Markdown: per cent after the eraser, the untouched model's in brackets."""
    head = ["concept", *BARS, "Ho"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [row["concept"]]
        for score, _ in BARS.values():
            cells.append(
                f"{row[score]['value']:.1%} ({row['untouched'][score]['value']:.1%})"
                if score in row
                else "–"
            )
        lines.append("| " + " | ".join([*cells, f"{row['ho']:.3f}"]) + " |")
    means = ["**mean**"]
    for score, bar in BARS.values():
        having = [row for row in rows if score in row]
        after = sum(row[score]["value"] for row in having) / max(len(having), 1)
        before = sum(row["untouched"][score]["value"] for row in having) / max(len(having), 1)
        means.append(f"{after:.1%} ({before:.1%}){' ' + bar if bar else ''}")
    means.append(f"{sum(row['ho'] for row in rows) / len(rows):.3f}")
    return "\n".join([*lines, "| " + " | ".join(means) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concepts", nargs="*", default=[])
    parser.add_argument("--label", default="default", help="a name for these settings")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--exam", type=int, default=48, help="pictures a question (default 48)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=miniflux.FOLDER, help="MiniFlux's files")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = args.out / args.label
    folder.mkdir(parents=True, exist_ok=True)
    bundle, judge = miniflux.load(folder=args.folder), miniflux.load_recogniser(args.folder)
    for name in args.concepts:
        path = folder / f"{name}.json"
        if not path.exists():
            write_json(path, measure(name, args, bundle, judge))
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    print(table(rows))


if __name__ == "__main__":
    main()
