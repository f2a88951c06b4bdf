"""``eraseanything accept``: does everything work with these files, on this machine?"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .concepts import add_source
from .evidence import LOG, REPORT, Evidence
from .models import (
    MINIFLUX,
    add_memory,
    add_model,
    budget,
    bundled_file,
    files,
    open_model,
    require_vae,
    size,
)
from .numbers import HIGHEST_SEED, STEPS, whole
from .output import add_overwrite, check_out, save_picture, say
from .progress import Bar, clock
from .signals import stopping
from .train import exit_code, find_concepts

if TYPE_CHECKING:
    from ..methods.eraseanything.settings import TrainSettings
    from ..methods.eraseanything.trainer import Trainer
    from ..models.base import Adapter, Model
    from ..pictures import Picture
    from ..training.progress import Progress
    from ..training.result import Result

HELP = "check your own Flux files end to end; one folder to attach to a bug report"
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
TIMED = 20  # iterations, the last ones of the run
SHARE = 6  # a whole run has this many times the rollouts
SEEDS = 2  # pictures a prompt
# Noise level and guidance whose thousandfold, which diffusers takes in bfloat16, is exact there.
SIGMA, GUIDANCE = 0.5, 4.0
CLOSE = 0.05  # relative difference of velocities that rounding to bfloat16 explains


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
        default=28,
        metavar="N",
        help="steps of a picture (default 28)",
    )
    add_memory(parser)
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="seed of every draw (default 0)"
    )


def run(args: argparse.Namespace) -> int:
    names = (REPORT, PICTURES, LORA, LOG)
    check_out(args, [args.out / name for name in names])
    if args.model != MINIFLUX:
        named = files(args)
        args.clip_l, args.t5, args.vae = named.clip_l, named.t5, named.vae
    given = [Path(p) for p in (args.model, args.clip_l, args.t5, args.vae, args.tokenizers) if p]
    evidence = Evidence("accept", given)
    with evidence.written_to(args.out):
        _look_at_files(args, evidence)
        result = _try_out(args, evidence)
    report = evidence.content
    say(args, report, *_lines(report, args.out))
    return exit_code(result)


def _look_at_files(args: argparse.Namespace, evidence: Evidence) -> None:
    """Versions, and what is in each file."""
    from ..machine import versions
    from ..models.flux1.survey import contents, sentence, survey
    from ..tensors import read_weights

    evidence.content |= {"versions": versions(), "files": {}}
    files = evidence.content["files"]
    with evidence.stage("checking the files"):
        model = bundled_file() if args.model == MINIFLUX else Path(args.model)
        files["model"] = {"name": model.name, **survey(model)}
        evidence.tell(f"  {model.name}: {sentence(files['model'])}")
        for label in ("clip_l", "t5", "vae"):
            path = getattr(args, label)
            if path is not None:
                files[label] = {"name": path.name, **contents(read_weights(path))}


def _try_out(args: argparse.Namespace, evidence: Evidence) -> Result:
    """Load, compare, train, draw."""
    from ..machine import describe
    from ..training.estimate import estimate
    from ..training.memory import settle

    content = evidence.content
    with evidence.stage("loading"):
        model = open_model(args, placed=False)
        require_vae(model)
        content["machine"] = describe(model.device)
    with evidence.stage("comparing with diffusers"):
        content["velocity"] = _compare(model, args.seed)
    laps = _Laps(Bar())
    with evidence.stage("reading prompts"):
        trainer, whole = _trainer(args, model, laps)
        content["settings"] = trainer.settings.to_dict()
        trainer.encode()
    with evidence.stage("predicting"):
        kept = settle(trainer, budget(args))
        expected = estimate(trainer, kept.weights)
        content["predicted"] = {"kept": kept.how, **asdict(expected)}
        evidence.tell(f"  {expected}; {kept.how}")
    with evidence.stage("training"):
        result = _train(trainer, model, args.out / LORA)
        content |= {"stopped": result.stopped, "history": list(result.history)}
        content["measured"] = _measure(trainer, result, laps)
        content["whole_run"] = _whole_run(trainer, whole, result, laps)
    with evidence.stage("drawing"):
        save_picture(args.out / PICTURES, _before_after(args, model, trainer, result.eraser))
    return result


def _train(trainer: Trainer, model: Model, out: Path) -> Result:
    """Run and save; signals end the run after its current step."""
    from ..erasers.metadata import Base
    from ..models.files import base_hash
    from ..training.result import BrokenError
    from ..training.save import save_result

    with stopping(trainer.stop):
        try:
            result = trainer.run()
        except BrokenError as error:
            raise error.cause from None
        save_result(result, trainer.concepts, Base(model.name, base_hash(model)), out)
    return result


def _compare(model: Model, seed: int) -> dict[str, Any]:
    """Our velocity beside diffusers', for a small noise and a real prompt."""
    import torch

    from ..models.flux1.parity import diffusers_velocity
    from ..models.sampling import noise

    cond = model.text.encode(["a photo of a house"])  # the weights are in main memory yet
    x, sigma = noise(seed, 1, 64, 96), torch.full((1,), SIGMA)
    try:
        theirs = diffusers_velocity(model.tree, model.config, x, sigma, cond, GUIDANCE)
    except EraseError as error:
        return {"compared": False, "why": str(error)}
    with torch.no_grad():
        ours = model.velocity(x, sigma, cond, GUIDANCE)
    difference = float((ours - theirs).norm() / theirs.norm())
    return {
        "compared": True,
        "relative_difference": difference,
        "agrees": difference < CLOSE,
        "norm": float(ours.norm()),
    }


def _trainer(args: argparse.Namespace, model: Model, laps: _Laps) -> tuple[Trainer, TrainSettings]:
    """A trainer for a short run, and the settings of a whole one."""
    from ..methods.base import find_method
    from ..methods.eraseanything.trainer import Trainer

    concepts = find_concepts(args)
    whole = replace(find_method("eraseanything").suited(model, concepts), seed=args.seed)
    if args.size:
        whole = replace(whole, height=args.size[0], width=args.size[1])
    if args.batch:
        whole = replace(whole, batch=args.batch)
    short = replace(
        whole,
        steps=args.steps,
        erase_rollouts=-(-whole.erase_rollouts // SHARE),
        keep_rollouts=-(-whole.keep_rollouts // SHARE),
        checkpoint_every=0,
    )
    return Trainer(model, concepts, short, on_step=laps), whole


class _Laps:
    """Notes when each iteration ended, and shows progress."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.ends = bar, [0.0]

    def __call__(self, progress: Progress) -> None:
        if progress.phase == "training":
            self.ends.append(time.perf_counter())
        self.bar(progress)

    def last(self) -> list[float]:
        """Seconds of the last TIMED iterations, the first of all left out."""
        ends = self.ends[1:]
        return [b - a for a, b in zip(ends, ends[1:], strict=False)][-TIMED:]


def _measure(trainer: Trainer, result: Result, laps: _Laps) -> dict[str, Any]:
    from ..machine import device_peak, peak_memory

    laps_taken = laps.last()
    return {
        "seconds": {phase: round(value, 3) for phase, value in result.seconds.items()},
        "iterations_timed": len(laps_taken),
        "seconds_per_iteration": median(laps_taken) if laps_taken else None,
        "slowest_iteration": max(laps_taken, default=None),
        "device_peak_bytes": device_peak(trainer.device),
        "process_peak_bytes": peak_memory(),
    }


def _whole_run(
    trainer: Trainer, whole: TrainSettings, result: Result, laps: _Laps
) -> dict[str, Any]:
    """Seconds of a run with the default settings, from what the short one took."""
    short, laps_taken = trainer.settings, laps.last()
    if not laps_taken:
        return {}
    rollouts = whole.erase_rollouts + whole.keep_rollouts
    share = rollouts / (short.erase_rollouts + short.keep_rollouts)
    seconds = {
        "text": result.seconds.get("text", 0.0) * share,
        "rollouts": result.seconds.get("rollouts", 0.0) * share,
        "training": sum(laps_taken) / len(laps_taken) * whole.steps,
    }
    return {"steps": whole.steps, "seconds": seconds, "total_seconds": sum(seconds.values())}


def _before_after(
    args: argparse.Namespace, model: Model, trainer: Trainer, eraser: Adapter | None
) -> Picture:
    """A few prompts of the run from the same seeds, without and with the eraser."""
    from ..pictures import Row, grid, to_pictures

    prompts = _prompts(trainer)
    texts = [text for _, text in prompts for _ in range(SEEDS)]
    seeds = [args.seed + index for _ in prompts for index in range(SEEDS)]
    drawn: list[Sequence[Picture]] = []
    for used, label in ((None, "drawing before"), (eraser, "drawing after")):
        pixels = model.generate(
            trainer.encode().encoded(texts),
            seeds,
            size=args.size,
            steps=args.draw_steps,
            eraser=used,
            batch=SEEDS,
            on_batch=Bar().phase(label, len(texts)),
        )
        drawn.append(to_pictures(pixels))
    rows = []
    for index, (role, text) in enumerate(prompts):
        part = slice(index * SEEDS, (index + 1) * SEEDS)
        rows.append(Row(text, [pictures[part] for pictures in drawn], note=role))
    steps = len(trainer.history)
    return grid(rows, ("without", f"with {steps} iterations"), title=f"accept: {model.name}")


def _prompts(trainer: Trainer) -> list[tuple[str, str]]:
    """What is drawn: (role, prompt)."""
    first, *others = trainer.plan.erase
    found = [("to be erased", first.sentence.text)]
    found += [("to be erased", other.sentence.text) for other in others[:1]]
    found += [("to be kept", word.text) for word in first.irrelevant[:1]]
    found += [("to be kept", text) for text in trainer.plan.keep if text][:3]
    return list({text: (role, text) for role, text in found}.values())[:4]


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
