"""How good MiniFlux is: its pictures, on wordings never trained, named by the recogniser."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from erase_core.miniatures.miniflux.judge import (
    CHOICES,
    Case,
    cases,
    judge,
    recognise,
    synonym_cases,
)
from torch import Tensor

from erase_core.evaluate.scores import Rate
from erase_core.miniatures import miniflux
from erase_core.miniatures.miniflux.world import THINGS
from erase_core.pictures import Row, grid, to_pictures


def all_cases(per_thing: int, per_other: int, seed: int) -> dict[str, list[Case]]:
    """Cases by group: each concept of each kind, and the things under their synonyms."""
    groups: dict[str, list[Case]] = {}
    for kind, names in CHOICES.items():
        count = per_thing if kind == "thing" else per_other
        for index, name in enumerate(names):
            groups[f"{kind}/{name}"] = cases([name], count, seed + index)
    for index, thing in enumerate(THINGS):
        groups[f"synonym/{thing.name}"] = synonym_cases(thing.name, thing.synonyms, 3, seed + index)
    return groups


def save_sheet(path: Path, shown: list[Case], pictures: Tensor, columns: int = 12) -> None:
    """All pictures in rows, each row's prompts below one another at its left."""
    images = to_pictures(pictures)
    rows = [
        Row(", ".join(case.concept for case in shown[i : i + columns]), [images[i : i + columns]])
        for i in range(0, len(images) - columns + 1, columns)
    ]
    grid(rows, ("MiniFlux, one picture a concept",), cell=96).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=miniflux.FOLDER)
    parser.add_argument("--per-thing", type=int, default=20)
    parser.add_argument("--per-other", type=int, default=16)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="PNG with one picture of every concept")
    args = parser.parse_args(argv)
    bundle, model = miniflux.load(folder=args.folder), miniflux.load_recogniser(args.folder)
    groups = all_cases(args.per_thing, args.per_other, args.seed)
    flat = [case for group in groups.values() for case in group]
    pictures = bundle.generate(
        [c.prompt for c in flat],
        [c.seed for c in flat],
        steps=args.steps,
        batch=48,
        on_batch=lambda done: print(f"\r{done}/{len(flat)}", end="", flush=True),
    )
    hits = iter(judge(recognise(model, pictures), flat))
    rates = {name: Rate.of([next(hits) for _ in group]) for name, group in groups.items()}
    print()
    for kind in (*CHOICES, "synonym"):
        members = {n: r for n, r in rates.items() if n.startswith(f"{kind}/")}
        total = Rate(sum(r.hits for r in members.values()), sum(r.count for r in members.values()))
        worst = sorted(members, key=lambda n: members[n].value)[:6]
        print(
            f"{kind}: {total}; lowest "
            + ", ".join(f"{n.split('/')[1]} {members[n].value:.0%}" for n in worst)
        )
    if args.sheet:
        firsts = [sum(len(g) for g in list(groups.values())[:i]) for i in range(len(groups))]
        save_sheet(args.sheet, [flat[i] for i in firsts], pictures[firsts])
    if args.json:
        args.json.write_text(json.dumps({n: r.to_dict() for n, r in rates.items()}, indent=1))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
