"""``eraseanything train``: one eraser, for any Flux."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .concepts import add_source, look_up
from .keep import read_keep_pictures
from .models import MINIFLUX, add_memory, add_model, file_hash, open_bundle, require_vae, settle
from .output import add_out, check_out, save_picture, say, sentence, tell, warn
from .progress import Bar, clock
from .settings import WithDefaults, add_settings, read_settings, refuse_settings
from .signals import stopping

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..concepts.sets import ConceptSet
    from ..training import Trainer, TrainResult

HELP = "train an eraser and write it as a LoRA file"
DESCRIPTION = """\
Train a LoRA that makes a Flux model forget a concept. No pictures are needed: the model draws its
own training states. Ctrl-C keeps the work done so far; checkpoints beside the file let a run that
was stopped go on with --resume where it was."""
EXAMPLES = """\
examples:
  eraseanything train --concept cat --out cat.safetensors
  eraseanything train --concept dog rose "left of" --out three.safetensors
  eraseanything train --model flux1-dev.safetensors --clip-l clip_l.safetensors \\
      --t5 t5xxl_fp8.safetensors --concepts tiger.json --out tiger.safetensors
  eraseanything train --resume tiger.checkpoints --steps 800 --out tiger.safetensors"""
USAGE = (
    "eraseanything train (--concept NAME... | --concepts FILE.json | --resume DIR)\n"
    "                           --out FILE.safetensors [options]"
)
FORMATTER = WithDefaults
CANCELLED, FAILED = 130, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("what to erase (one of these)")
    choice = source.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--concept",
        nargs="+",
        metavar="NAME",
        help="a concept, or several at once; the words to keep are found",
    )
    choice.add_argument("--concepts", type=Path, metavar="FILE.json", help="a concept set")
    choice.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on from a folder of checkpoints"
    )
    add_source(source)
    add_model(parser)
    add_out(parser, "FILE.safetensors", "the LoRA file")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="your own pictures of what must stay, each with a caption in a .txt of the same name",
    )
    parser.add_argument("--chart", type=Path, metavar="PNG", help="draw the losses, too")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="where checkpoints go and stay (default: beside the file, deleted when all is done)",
    )
    add_memory(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    from ..training.run_folder import remove_checkpoints

    check_out(args, [args.out], ".safetensors")
    if args.chart:
        check_out(args, [args.chart], ".png")
    if args.resume:
        refuse_settings(args)
        if args.pictures:
            raise EraseError("A checkpoint holds its own pictures; leave --pictures out.")
    folder = _run_folder(args)
    bundle = open_bundle(args, placed=False)
    trainer = _trainer(args, bundle, folder, Bar())
    _tell_notices(trainer)
    kept, expected = settle(args, bundle, trainer)
    if not args.json:
        tell(f"Training takes {expected}; {kept}.")
    bundle = replace(bundle, sha256=bundle.sha256 or file_hash(Path(args.model)))
    result, path = run_and_save(trainer, bundle, args.out)
    if args.chart and result.history:
        from ..pictures import loss_chart

        save_picture(args.chart, loss_chart(result.history, title=title(trainer.concepts)))
    if result.stopped == "done" and not (args.checkpoints or args.resume):
        remove_checkpoints(folder)
    return _report(args, result, trainer, path, folder)


def _run_folder(args: argparse.Namespace) -> Path:
    """The folder of this run's checkpoints, held until the command ends."""
    from ..training.run_folder import checkpoints, is_checkpoint, own_run_folder

    path = args.resume or args.checkpoints or args.out.with_suffix(".checkpoints")
    none = EraseError(f"There is no checkpoint in {path}; check the path.")
    if args.resume and not path.is_dir():
        raise none
    folder = args.held.enter_context(own_run_folder(path))
    if args.resume and not (is_checkpoint(path) or checkpoints(folder)):
        raise none
    return folder


def _trainer(args: argparse.Namespace, bundle: Bundle, folder: Path, bar: Bar) -> Trainer:
    from ..training import Trainer

    tree, config, text = bundle.tree, bundle.config, bundle.text
    if args.resume:
        return Trainer.resume(args.resume, tree, config, text, steps=args.steps, on_step=bar)
    concepts = find_concepts(args)
    settings = read_settings(args, default_settings(args, bundle, concepts))
    pictures = None
    if args.pictures:
        require_vae(bundle)
        size = (settings.height, settings.width)
        pictures = read_keep_pictures(args.pictures, bundle.vae, size)
    return Trainer(
        tree,
        config,
        text,
        concepts,
        settings,
        pictures=pictures,
        checkpoint_dir=folder,
        replace=args.overwrite and not args.checkpoints,
        on_step=bar,
    )


def default_settings(args: argparse.Namespace, bundle: Bundle, concepts: ConceptSet) -> Any:
    """The settings that suit the model and what it is to forget."""
    from ..miniflux import train_settings
    from ..training import TrainSettings

    if args.model == MINIFLUX:
        return train_settings(concepts)
    settings = TrainSettings(height=bundle.size[0], width=bundle.size[1], shift_mu=bundle.shift_mu)
    return settings.for_concepts(len(concepts.concepts))


def find_concepts(args: argparse.Namespace) -> ConceptSet:
    """What ``--concepts`` or ``--concept`` names, with its words."""
    from ..concepts.sets import ConceptSet
    from ..miniflux.concepts import concept

    if args.concepts:
        return ConceptSet.load(args.concepts)
    if args.model == MINIFLUX:
        return ConceptSet.together(map(concept, args.concept))
    return look_up(args.concept, args)


def run_and_save(trainer: Trainer, bundle: Bundle, out: Path) -> tuple[TrainResult, Path | None]:
    """Run, and write the LoRA; whatever goes wrong, the work done so far is written, too.

    The path is that of :func:`erase_core.training.save_result`.
    """
    from ..training import rescue, save_result

    with stopping(trainer):
        try:
            result = trainer.run()
        except Exception as error:
            path = rescue(trainer, out, bundle.name, bundle.sha256)
            if path is None:
                raise
            reason = sentence(error).rstrip(".")
            raise EraseError(f"{reason}. The work so far is in {path}.") from error
        finally:
            _tell_notices(trainer)
        return result, save_result(result, trainer, out, bundle.name, bundle.sha256)


def _tell_notices(trainer: Trainer) -> None:
    while trainer.notices:
        warn(trainer.notices.pop(0))


def title(concepts: ConceptSet) -> str:
    """What a chart is called."""
    return "Erasing " + ", ".join(f"“{concept.name}”" for concept in concepts.concepts)


def _report(
    args: argparse.Namespace,
    result: TrainResult,
    trainer: Trainer,
    path: Path | None,
    folder: Path,
) -> int:
    from ..training.run_folder import checkpoints

    steps, kept = len(result.history), checkpoints(folder)
    seconds = sum(result.seconds.values())
    say(
        args,
        {
            "lora": str(path) if path else None,
            "stopped": result.stopped,
            "steps": steps,
            "losses": result.history[-1] if result.history else {},
            "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        },
        stopped_sentence(result, path, seconds),
        *([f"Checkpoints are in {folder}; --resume {folder} goes on."] if kept else []),
    )
    return exit_code(result)


def exit_code(result: TrainResult) -> int:
    """0 done, 1 diverged, 130 cancelled."""
    return {"done": 0, "diverged": FAILED, "cancelled": CANCELLED}[result.stopped]


def stopped_sentence(result: TrainResult, path: Path | None, seconds: float) -> str:
    """How a run ended, and where its file is."""
    steps = len(result.history)
    if path is None:
        return "Stopped before the first iteration; nothing was written."
    if result.stopped == "cancelled":
        return f"Cancelled after {steps} iterations; the partial LoRA is in {path}."
    if result.stopped == "diverged":
        return (
            f"The losses diverged after {steps} iterations; the last good weights are in {path}. "
            "Try a lower --lr-low."
        )
    return f"{path}: {steps} iterations in {clock(seconds)}."
