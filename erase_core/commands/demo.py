"""``eraseanything demo``: erase something from the bundled MiniFlux and look at what happened."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .models import add_device, open_miniflux
from .numbers import HIGHEST_SEED, whole
from .output import add_overwrite, check_out, save_picture, say
from .progress import Bar, clock
from .train import exit_code, run_and_save, stopped_sentence, title

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..concepts.sets import ConceptSet
    from ..lora import EraserLora
    from ..metrics.marks import Marks
    from ..miniflux.exam import Exam
    from ..training import Trainer, TrainResult

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


def run(args: argparse.Namespace) -> int:
    folder = args.out or Path("out") / args.concept.replace(" ", "-")
    paths = {name: folder / name for name in FILES}
    check_out(args, paths.values())
    bar = Bar()
    concepts = _concepts(args.concept)
    bundle = open_miniflux(args)
    trainer = _trainer(args, bundle, concepts, bar)
    seconds = {"loading": time.perf_counter() - args.started}
    result, lora_path = run_and_save(trainer, bundle, paths["lora.safetensors"])
    seconds |= result.seconds | {"to_lora": time.perf_counter() - args.started}
    if result.stopped == "done" and trainer.reporter.stopping:
        raise KeyboardInterrupt  # it came during the last write
    if result.stopped != "done":
        sentence = stopped_sentence(result, lora_path, seconds["to_lora"])
        say(args, {"lora": str(lora_path), "stopped": result.stopped}, sentence)
        return exit_code(result)
    began = time.perf_counter()
    exam, untouched, marks = _examine(args, bundle, result.lora, bar)
    seconds["exam"] = time.perf_counter() - began
    began = time.perf_counter()
    _draw(paths, bundle, result, trainer, (exam, untouched, marks), bar)
    seconds["pictures"] = time.perf_counter() - began
    report = _report(args, trainer, result, marks, untouched, seconds)
    _write(paths["report.json"], report)
    say(args, report, *_lines(args.concept, marks, untouched, seconds, folder))
    return 0


def _concepts(name: str) -> ConceptSet:
    from ..concepts.sets import ConceptSet
    from ..miniflux.concepts import concept

    return ConceptSet((concept(name),))


def _trainer(args: argparse.Namespace, bundle: Bundle, concepts: ConceptSet, bar: Bar) -> Trainer:
    from ..miniflux import demo_settings
    from ..training import Trainer

    settings = replace(demo_settings(concepts), seed=args.seed)
    return Trainer(bundle.tree, bundle.config, bundle.text, concepts, settings, on_step=bar)


def _examine(
    args: argparse.Namespace, bundle: Bundle, lora: EraserLora, bar: Bar
) -> tuple[Exam, Marks, Marks]:
    """The exam, and its marks without and with the eraser."""
    from ..miniflux import load_recogniser
    from ..miniflux.exam import Exam

    exam = Exam.of(args.concept, args.exam, args.seed)
    recogniser = load_recogniser()
    count = len(exam.cases())
    untouched = exam.sit(bundle, recogniser, on_batch=bar.phase("exam before", count))
    marks = exam.sit(bundle, recogniser, lora, on_batch=bar.phase("exam after", count))
    return exam, untouched, marks


def _draw(
    paths: Mapping[str, Path],
    bundle: Bundle,
    result: TrainResult,
    trainer: Trainer,
    examined: tuple[Exam, Marks, Marks],
    bar: Bar,
) -> None:
    from ..pictures import loss_chart
    from .showcase import attention_sheet, before_after

    exam, untouched, marks = examined
    sheet = before_after(bundle, result.lora, exam, untouched, marks, bar.phase)
    save_picture(paths["before_after.png"], sheet)
    chart = loss_chart(result.history, title=title(trainer.concepts))
    save_picture(paths["losses.png"], chart)
    save_picture(paths["attention.png"], attention_sheet(bundle, result.lora, exam))


def _report(
    args: argparse.Namespace,
    trainer: Trainer,
    result: TrainResult,
    marks: Marks,
    untouched: Marks,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    import torch

    from ..machine import peak_memory

    return {
        "concept": args.concept,
        "model": "miniflux",
        "seed": args.seed,
        **marks.to_dict(),
        "untouched": untouched.to_dict(),
        "losses": result.history[-1],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "settings": trainer.settings.to_dict(),
        "versions": {"erase_core": __version__, "torch": torch.__version__},
        "device": str(trainer.device),
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
    names = {
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
