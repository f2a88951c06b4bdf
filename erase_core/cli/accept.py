"""``eraseanything accept``: does everything work with these files, on this machine?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .concepts import add_source
from .evidence import LOG, REPORT, Evidence
from .models import (
    FILES,
    MINIFLUX,
    add_memory,
    add_model,
    bundled_file,
    files,
    open_model,
    require_vae,
    size,
)
from .numbers import HIGHEST_SEED, STEPS, whole
from .output import add_overwrite, check_out, save_picture, say
from .progress import Bar, clock
from .train import erase_and_save, exit_code, find_concepts

if TYPE_CHECKING:
    from ..api import Order, Ready
    from ..methods.eraseanything.settings import TrainSettings
    from ..models.base import Model
    from ..training.estimate import Run
    from ..training.result import Result

HELP = "check your own model's files end to end; one folder to attach to a bug report"
DESCRIPTION = """\
Try everything with your own files, once, and write down what happened. First come every key, shape
and dtype of the model file, and one velocity beside diffusers' (if it is installed). Then follow a
short training with 20 iterations timed, and the same seeds without and with its eraser. The folder
then holds

  report.json         versions, device, keys, timings, memory, what failed (if anything did)
  before_after.png    pictures; a short eraser has only begun to erase
  lora.safetensors    the short eraser
  warnings.log        what libraries warned of

and names your files, but no folders, user names or keys: attach it to a bug report as it is."""
EXAMPLES = """\
examples:
  eraseanything accept                                  # the bundled MiniFlux, a minute
  eraseanything accept --model flux1-dev.safetensors --clip-l clip_l.safetensors \\
      --t5 t5xxl_fp16.safetensors --vae ae.safetensors --out accepted"""
PICTURES, LORA = "before_after.png", "lora.safetensors"
METHOD = "eraseanything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("what to erase")
    source.add_argument(
        "--concept", nargs="+", default=["tiger"], metavar="NAME", help="default tiger"
    )
    add_source(source)
    parser.set_defaults(concepts=None)
    add_model(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("accept"), metavar="DIR", help="default: accept"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--steps", type=int, default=60, metavar="N", help="iterations of training (default 60)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="states in each half-step")
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="pixels, multiples of 16 (default: the model's)"
    )
    parser.add_argument(
        "--draw-steps",
        type=whole(1, STEPS),
        metavar="N",
        help="steps of a picture (default: the model's, of FLUX.1 28)",
    )
    add_memory(parser)
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="seed of every draw (default 0)"
    )


def run(args: argparse.Namespace) -> int:
    names = (REPORT, PICTURES, LORA, LOG)
    check_out(args, [args.out / name for name in names])
    named = (args.model, *(getattr(args, name) for name in FILES if name != "t5_length"))
    given = [Path(path) for path in named if path]
    evidence = Evidence("accept", given)
    with evidence.written_to(args.out):
        _look_at_files(args, evidence)
        result = _try_out(args, evidence)
    report = evidence.content
    say(args, report, *_lines(report, args.out))
    return exit_code(result)


def _look_at_files(args: argparse.Namespace, evidence: Evidence) -> None:
    """Versions, and what is in each file."""
    from ..evaluate.acceptance import survey, survey_parts
    from ..machine import versions

    evidence.content |= {"versions": versions(), "files": {}}
    found = evidence.content["files"]
    with evidence.stage("checking the files"):
        model = bundled_file() if args.model == MINIFLUX else Path(args.model)
        seen = survey(model)
        found["model"] = {"name": model.name, **seen.found}
        evidence.tell(f"  {model.name}: {seen.line}")
        if args.model != MINIFLUX:
            found |= survey_parts(files(args))


def _try_out(args: argparse.Namespace, evidence: Evidence) -> Result:
    """Load, compare, train, draw."""
    from ..evaluate.acceptance import Laps, before_after, compare, extrapolated, measured
    from ..machine import describe

    content = evidence.content
    with evidence.stage("loading"):
        model = open_model(args, placed=False)
        require_vae(model)
        content["machine"] = describe(model.device)
    with evidence.stage("comparing with diffusers"):
        content["velocity"] = compare(model, args.seed)
    with evidence.stage("training"):
        order, whole = _order(args, model)
        runs: list[Run] = []
        laps = Laps(Bar())

        def ready(found: Ready) -> None:
            runs.append(found.run)
            content["predicted"] = {"kept": found.kept, **asdict(found.expected)}

        out = args.out / LORA
        result = erase_and_save(args, model, order, out, on_step=laps, on_ready=ready).result
        content |= {"settings": dict(result.settings), "stopped": result.stopped}
        content["history"] = list(result.history)
        content["measured"] = measured(result, laps.last(), model.device)
        content["whole_run"] = extrapolated(result, whole, laps.last())
    for run in runs:  # none when it was cancelled before its prompts were read
        with evidence.stage("drawing"):
            drawn = before_after(
                run, result.eraser, args.seed, args.size, args.draw_steps, Bar().phase
            )
            save_picture(args.out / PICTURES, drawn)
    return result


def _order(args: argparse.Namespace, model: Model) -> tuple[Order, TrainSettings]:
    """A short run, and the settings of a whole one."""
    from ..api import Order
    from ..evaluate.acceptance import shortened
    from ..methods.base import find_method

    concepts, changes = find_concepts(args), {}
    if args.size:
        changes = {"height": args.size[0], "width": args.size[1]}
    if args.batch:
        changes["batch"] = args.batch
    whole = find_method(METHOD).suited(model, concepts, changes=changes)
    return Order(concepts, METHOD, "", changes | shortened(whole, args.steps), args.seed), whole


def _lines(report: dict[str, Any], folder: Path) -> list[str]:
    """The report for a person."""
    velocity, measured, whole = report["velocity"], report["measured"], report["whole_run"]
    if not velocity["compared"]:
        compared = f"not compared: {velocity['why']}"
    else:
        verdict = "as diffusers'" if velocity["agrees"] else "NOT as diffusers'"
        compared = f"{verdict} (relative difference {velocity['relative_difference']:.1e})"
    each = measured["seconds_per_iteration"]
    ran = f"{report['stopped']}, {each:.3g} s an iteration" if each else report["stopped"]
    told = "not predicted: too few iterations"
    if whole:
        told = f"{clock(whole['total_seconds'])} for {whole['steps']} iterations"
    return [
        "",
        f"velocity         {compared}",
        f"training         {ran}",
        f"a whole run      {told}",
        "",
        f"Everything is in {folder}; look at {PICTURES}, and attach the folder to a bug report.",
    ]
