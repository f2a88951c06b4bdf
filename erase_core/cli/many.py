"""``eraseanything many``: an eraser for each of many concepts, on all cores or cards."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .concepts import add_kind, look_up
from .making import Erasers, Maker, Task, foresee
from .models import MINIFLUX, add_memory, add_model
from .numbers import HIGHEST_SEED, whole
from .output import say, tell, warn
from .progress import Bar, clock
from .sharing import add_ray, add_workers, places, plain, share

if TYPE_CHECKING:
    from ..concepts.sets import Concept
    from ..methods.base import Method
    from ..processes import Event

HELP = "make an eraser for each of many concepts, side by side"
DESCRIPTION = """\
Make an eraser for every name of a list, in several processes at once. What the folder holds already
is not made again, and a run that was broken off goes on from its checkpoints. So the command can be
stopped or killed at any time, and begun again with the same words. A concept that fails does not
stop the others. MiniFlux's erasers are examined, too. The folder then holds:

  NAME.safetensors   an eraser
  NAME.json          what it erases, how well, in how many seconds
  report.json        all of it, with what failed and why
  combined.safetensors   with --combine: all erasers as one file"""
EXAMPLES = """\
examples:
  eraseanything many names.txt --out out/many           # a name a line
  eraseanything many names.txt --out out/many --dry-run
  eraseanything many set.json --method uce --together 10 --combine --out out/many
  eraseanything many names.txt --ray auto --out /shared/many
  eraseanything many names.txt --model flux1-dev.safetensors --clip-l clip_l.safetensors \\
      --t5 t5xxl_fp8.safetensors --out out/many"""
FAILED = 1
EXAM = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="FILE", help="a name a line, or a concept set")
    add_kind(parser)
    parser.set_defaults(sense=None)
    add_model(parser)
    add_memory(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    parser.add_argument("--method", default="eraseanything", metavar="NAME", help="how to erase")
    parser.add_argument("--preset", default="", metavar="NAME", help="settings to start from")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="as for train"
    )
    parser.add_argument("--seed", type=whole(0, HIGHEST_SEED), default=0, help="of every eraser")
    parser.add_argument(
        "--together", type=whole(1, 1000), default=1, metavar="N", help="concepts an eraser"
    )
    add_workers(parser, "one a card, else one a core")
    add_ray(parser)
    parser.add_argument(
        "--exam",
        type=whole(0, 10_000),
        default=EXAM,
        metavar="N",
        help=f"pictures a question of MiniFlux's exam (default {EXAM}; 0: none)",
    )
    parser.add_argument("--combine", action="store_true", help="write all erasers as one, too")
    parser.add_argument("--dry-run", action="store_true", help="only tell tasks, hours and disk")


def run(args: argparse.Namespace) -> int:
    from ..methods.base import find_method
    from ..settings import read_pairs
    from ..writing import locked

    method = find_method(args.method)
    if method.made in ("guard", "as it is"):
        raise EraseError(f"{method.label} writes no eraser; choose another method.")
    changes = read_pairs(method.settings, args.set)
    tasks, refused = plan(args)
    folder = args.out
    if folder.is_file():
        raise EraseError(f"{folder} is a file; name a folder.")
    if args.dry_run:
        return _dry_run(args, method, changes, tasks, places(args, len(tasks))[0], refused)
    args.held.enter_context(locked(folder / ".eraseanything.lock", folder))
    order = {"method": method.name, "preset": args.preset, "changes": changes}
    _same_order(args, order, [task.name for task in tasks])
    made = {task.name: found for task in tasks if (found := _made(folder, task))}
    left = [task for task in tasks if task.name not in made]
    failed = dict(refused)
    bar = Bar().phase("erasers", len(tasks))
    bar(len(made))
    job = Erasers(plain(args), changes)
    for event in share(args, job, left, job.memory_of):
        name = left[event.task].name
        if event.kind == "done":
            made[name] = event.value
        elif event.kind == "failed":
            failed[name] = event.value
        _tell(args, name, event)
        if event.kind in ("done", "failed"):
            bar(len(made) + len(failed) - len(refused))
    return _finish(args, [task.name for task in tasks], made, failed)


def plan(args: argparse.Namespace) -> tuple[list[Task], dict[str, str]]:
    """The tasks of a list, and what of it cannot be looked up, with the sentence that says why."""
    from ..concepts.sets import ConceptSet

    found: list[Concept] = []
    refused: dict[str, str] = {}
    for name, find in _listed(args):
        try:
            found += find()
        except EraseError as error:
            refused[name] = str(error)
    groups = [found[i : i + args.together] for i in range(0, len(found), args.together)]
    tasks, names = [], set[str]()
    for group in groups:
        concepts = ConceptSet.together(group)
        name = stem = _file_name([concept.name for concept in group])
        while name.casefold() in names:  # "a/b" and "a b", on file systems that fold case, too
            name = f"{stem}-{len(names) + 1}"
        names.add(name.casefold())
        tasks.append(Task(name, concepts))
    if not tasks:
        told = next(iter(refused.values()), f"{args.list} names no concept; write one a line.")
        raise EraseError(told)
    return tasks, refused


def _listed(args: argparse.Namespace) -> Iterable[tuple[str, Callable[[], Sequence[Concept]]]]:
    """Each name of the list, and what finds its concept."""
    from ..concepts.sets import ConceptSet
    from ..evaluate.judges.recogniser import RecogniserJudge
    from ..files import read_text

    def look(name: str) -> Sequence[Concept]:
        if args.model == MINIFLUX:
            return [RecogniserJudge.concept(name)]
        return look_up([name], args).concepts

    is_set = args.list.suffix.lower() == ".json"
    if args.kind and (is_set or args.model == MINIFLUX):
        which = args.list if is_set else "MiniFlux"
        raise EraseError(f"{which} says itself what a concept is; leave --kind out.")
    if is_set:
        concepts = ConceptSet.load(args.list).concepts
        return [(concept.name, partial(list, [concept])) for concept in concepts]
    lines = (line.strip() for line in read_text(args.list).splitlines())
    names = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
    return [(name, partial(look, name)) for name in names]


def _file_name(names: Sequence[str]) -> str:
    first = re.sub(r"[^\w-]+", "-", names[0]).strip("-")[:80] or "concept"
    first = f"{first}-eraser" if first in ("report", "order", "combined") else first
    return f"{first}-and-{len(names) - 1}-more" if len(names) > 1 else first


def _same_order(args: argparse.Namespace, order: dict[str, Any], names: Iterable[str]) -> None:
    """Write down what the folder's erasers have in common; EraseError where it holds others, or
    files of the person's that would be replaced."""
    from ..files import read_json, write_json

    folder = args.out
    order |= {"model": str(args.model), "seed": args.seed}
    order = json.loads(json.dumps(order))
    path = folder / "order.json"
    told = read_json(path) if path.exists() else None
    ours = isinstance(told, dict) and told.keys() == order.keys()
    if not ours:
        for name in ("order", "report", *names):
            if (found := folder / f"{name}.json").exists():
                raise EraseError(f"{found} is none of this command's; choose another folder.")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.checkpoints/step-*")):
        write_json(path, order)
    elif told != order:
        raise EraseError(
            f"{folder} holds erasers with another model, method, seed or settings; choose another "
            "folder."
        )


def _made(folder: Path, task: Task) -> dict[str, Any] | None:
    """The report of an eraser that is there; EraseError where it erases something else."""
    from ..files import read_json

    path = folder / f"{task.name}.json"
    if not path.exists() or not path.with_suffix(".safetensors").exists():
        return None
    report: dict[str, Any] = read_json(path)
    if report.get("concepts") != json.loads(json.dumps(task.concepts.to_json())):
        raise EraseError(
            f"{path.with_suffix('.safetensors')} was made for other words than {task.name} has "
            "now; remove it or choose another folder."
        )
    return report


def _tell(args: argparse.Namespace, name: str, event: Event) -> None:
    """A line for what happened, or JSON."""
    kind, value = event.kind, event.value
    if args.json:
        if kind != "news":
            told = (
                {key: value[key] for key in ("file", "seconds", "verdict") if key in value}
                if kind == "done"
                else {"said": value}
            )
            tell(json.dumps({"event": kind, "eraser": name, **told}))
    elif kind == "done":
        tell(f"{value['file']}: {_line(value)}")
    elif kind == "failed":
        warn(f"{name}: {value}")
    elif kind == "lost":
        warn(f"{name} lost its process ({value}) and is begun again.")


def _line(report: Mapping[str, Any]) -> str:
    took = f" in {clock(report['seconds'])}" if "seconds" in report else ""
    return report.get("verdict", "made") + took


def _finish(
    args: argparse.Namespace,
    names: Sequence[str],
    made: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> int:
    """Combine, write the report, and say what there is."""
    from ..evaluate.report.markdown import markdown
    from ..files import write_json

    done = [name for name in names if name in made]
    report: dict[str, Any] = {"erasers": {name: made[name] for name in done}, "failed": {**failed}}
    if args.combine and len(done) > 1:
        report["combined"] = _combine(args, list(report["erasers"].values()))
    write_json(args.out / "report.json", report)
    rows = [[name, _line(made[name]), str(made[name]["file"])] for name in done]
    if found := report.get("combined"):
        rows.append(["all of them", _line(found), found["file"]])
    rows += [[name, reason, ""] for name, reason in failed.items()]
    told = f"{len(done)} erasers in {args.out}" + (f", {len(failed)} failed." if failed else ".")
    say(args, {"event": "end", **report}, markdown(["Eraser", "What it does", "File"], rows), told)
    return FAILED if failed else 0


def _combine(args: argparse.Namespace, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All erasers as one file, and its report."""
    from ..concepts.sets import ConceptSet
    from ..erasers.combine import Part, combine, combined_metadata
    from ..tensors import read_tensors, save_tensors

    read = [read_tensors(args.out / report["file"]) for report in reports]
    parts = [Part(tensors, 1.0, metadata) for tensors, metadata in read]
    tensors, target = combine(parts), args.out / "combined.safetensors"
    save_tensors(target, tensors, combined_metadata(parts, "cat", tensors))
    sets = [ConceptSet.from_json(report["concepts"]) for report in reports]
    together = ConceptSet.together(concept for found in sets for concept in found.concepts)
    return {"file": target.name} | Maker(args, {}).examine(together, target)


def _dry_run(
    args: argparse.Namespace,
    method: Method,
    changes: Mapping[str, Any],
    tasks: Sequence[Task],
    workers: int,
    refused: Mapping[str, str],
) -> int:
    """Tell tasks, hours and disk by what the first eraser would take."""
    told: dict[str, Any] = {"erasers": len(tasks), "workers": workers, "failed": dict(refused)}
    lines = [f"{len(tasks)} erasers in {workers} processes."]
    lines += [f"Not among them: {name}: {reason}" for name, reason in refused.items()]
    if method.is_run:
        ready = foresee(args, changes, tasks[0])
        seconds = ready.expected.seconds * -(-len(tasks) // workers)
        told |= {"seconds": round(seconds), "disk_bytes": ready.expected.disk * len(tasks)}
        lines.append(f"An eraser takes {ready.expected}; {ready.kept}.")
        lines.append(f"All take about {clock(seconds)} if processes do not slow each other down.")
    else:
        lines.append(f"{method.label} takes seconds each, beside the reading of prompts.")
    say(args, told, *lines)
    return 0
