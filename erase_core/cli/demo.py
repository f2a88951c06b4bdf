"""``eraseanything demo``: erase something from the bundled MiniFlux and look at what happened."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .models import MINIFLUX, add_device, open_model
from .numbers import HIGHEST_SEED, whole
from .output import add_overwrite, check_out, save_picture, say
from .progress import Bar, clock
from .train import erase_and_save, exit_code, stopped_sentence, title

if TYPE_CHECKING:
    from ..api import Erased, Examined
    from ..evaluate.marks import Marks, Role
    from ..models.base import Model
    from ..training.result import Result

HELP = "erase something from the bundled MiniFlux, with pictures and scores"
DESCRIPTION = """\
Train an eraser for the bundled MiniFlux on this machine, then examine it. No download, no GPU, no
pictures needed. The folder then holds:

  lora.safetensors   the eraser
  before_after.png   the same seeds without and with it
  losses.png         the four losses
  attention.png      where the words land in the picture, before and after
  report.json        scores with intervals, the same untouched, seconds, memory"""
EXAMPLES = """\
examples:
  eraseanything demo
  eraseanything demo --concept car --out out/my-car
  eraseanything demo --concept red          # a colour; "sketch" and "hugging" go, too

MiniFlux knows sixty things, eight colours, seven styles, four numbers and eight relations; a wrong
name lists them all."""
FILES = ("lora.safetensors", "before_after.png", "losses.png", "attention.png", "report.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concept", default="tiger", help="what to erase (default tiger)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: out/CONCEPT")
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="of training and exam (default 0)"
    )
    parser.add_argument(
        "--exam",
        type=whole(1, 10_000),
        default=64,
        metavar="N",
        help="pictures a question (default 64)",
    )
    add_overwrite(parser)
    add_device(parser)
    parser.set_defaults(model=MINIFLUX)


def run(args: argparse.Namespace) -> int:
    folder = args.out or Path("out") / args.concept.replace(" ", "-")
    paths = {name: folder / name for name in FILES}
    check_out(args, paths.values())
    from .. import api
    from ..concepts.sets import ConceptSet
    from ..evaluate.judges.recogniser import RecogniserJudge
    from ..training.memory import in_place

    bar, judge = Bar(), RecogniserJudge()
    concepts = ConceptSet((judge.concept(args.concept),))
    model = open_model(args)
    order = api.Order(concepts, preset="balanced", seed=args.seed)
    seconds = {"loading": time.perf_counter() - args.started}
    erased = erase_and_save(
        args, model, order, paths["lora.safetensors"], place=in_place, on_step=bar
    )
    result = erased.result
    seconds |= {**result.seconds, "to_lora": time.perf_counter() - args.started}
    if result.stopped != "done":
        sentence = stopped_sentence(result, erased.path, seconds["to_lora"])
        say(args, {"lora": str(erased.path), "stopped": result.stopped}, sentence)
        return exit_code(result)
    began = time.perf_counter()
    found = api.examine(model, concepts, result.eraser, judge, args.exam, args.seed, bar.phase)
    seconds["exam"] = time.perf_counter() - began
    began = time.perf_counter()
    _draw(paths, model, erased, found, bar)
    seconds["pictures"] = time.perf_counter() - began
    report = _report(args, model, result, found, seconds)
    _write(paths["report.json"], report)
    say(args, report, *_lines(args.concept, found.marks, found.untouched, seconds, folder))
    return 0


def _draw(
    paths: Mapping[str, Path], model: Model, erased: Erased, found: Examined, bar: Bar
) -> None:
    from ..pictures import loss_chart
    from .showcase import attention_sheet, before_after

    eraser = erased.result.eraser
    assert eraser is not None
    sheet = before_after(model, eraser, found.exam, found.untouched, found.marks, bar.phase)
    save_picture(paths["before_after.png"], sheet)
    chart = loss_chart(erased.result.history, title=title(erased.concepts))
    save_picture(paths["losses.png"], chart)
    save_picture(paths["attention.png"], attention_sheet(model, eraser, found.exam))


def _report(
    args: argparse.Namespace,
    model: Model,
    result: Result,
    found: Examined,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    import torch

    from ..machine import peak_memory

    return {
        "concept": args.concept,
        "model": "miniflux",
        "seed": args.seed,
        **found.marks.to_dict(),
        "untouched": found.untouched.to_dict(),
        "losses": result.history[-1],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "settings": dict(result.settings),
        "versions": {"erase_core": __version__, "torch": torch.__version__},
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }


def _write(path: Path, report: dict[str, Any]) -> None:
    from ..files import write_json

    write_json(path, report)


def _lines(
    concept: str,
    marks: Marks,
    untouched: Marks,
    seconds: Mapping[str, float],
    folder: Path,
) -> list[str]:
    """The scores as a table."""
    names: dict[Role, str] = {
        "erased": f"{concept}, erased",
        "held_out": "synonyms, never trained on",
        "seen": "synonyms, trained on",
        "near": "near neighbours",
        "other": "everything else",
        "companion": f"what stands beside {concept}",
    }
    lines = [
        (text, untouched.rates[r], marks.rates[r]) for r, text in names.items() if r in marks.rates
    ]
    if untouched.recognised and marks.recognised:
        lines.append(("still a picture of something", untouched.recognised, marks.recognised))
    return [
        "",
        "recognised in the pictures          without      with the eraser",
        *(f"  {text:<32}{old.value:>8.1%}  ->{new.value:>7.1%}" for text, old, new in lines),
        "",
        f"Eraser after {clock(seconds['to_lora'])}, pictures and report in {folder}.",
    ]
