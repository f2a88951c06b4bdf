"""``eraseanything train``: one eraser, for any model."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from ..methods.eraseanything.settings import TrainSettings
from ..settings import PRESETS, check
from .cards import add_cards, together
from .concepts import add_source, look_up
from .keep import read_keep_pictures
from .models import MINIFLUX, add_memory, add_model, budget, open_model, require_vae
from .numbers import whole
from .output import add_out, check_out, save_picture, say, sentence, tell, warn
from .progress import Bar, clock
from .settings import add_settings, given, refuse_settings
from .signals import STOPPING, TOLD, stopping

if TYPE_CHECKING:
    from ..api import Erased, Order, Ready
    from ..concepts.sets import ConceptSet
    from ..methods.base import Method
    from ..models.base import Model
    from ..training.encoding import Work
    from ..training.estimate import Run
    from ..training.memory import Kept
    from ..training.progress import Progress
    from ..training.result import Result

HELP = "train an eraser and write it as a LoRA file"
DESCRIPTION = """\
Train a LoRA that makes a model forget a concept. No pictures are needed: the model draws its own
training states. Ctrl-C keeps the work done so far; checkpoints beside the file let a run that was
stopped go on with --resume where it was. A FILE that was made from the very same order stays."""
EXAMPLES = """\
examples:
  eraseanything train --concept cat --out cat.safetensors
  eraseanything train --concept dog rose "left of" --out three.safetensors
  eraseanything train --model flux1-dev.safetensors --clip-l clip_l.safetensors \\
      --t5 t5xxl_fp8.safetensors --concepts tiger.json --out tiger.safetensors
  eraseanything train --model Chroma1-HD.safetensors --t5 t5xxl_fp8.safetensors \\
      --concept tiger --out tiger.safetensors
  eraseanything train --extend tiger.safetensors --concept lynx --out both.safetensors
  eraseanything train --resume tiger.checkpoints --steps 800 --out tiger.safetensors"""
USAGE = (
    "eraseanything train (--concept NAME... | --concepts FILE.json | --resume DIR)\n"
    "                           --out FILE.safetensors [options]"
)
CANCELLED, FAILED = 130, 1
LONG = 300  # seconds of encoding that a person may want to shorten


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser.add_argument_group("what to erase (one of these)"))
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
    add_cards(parser)
    parser.add_argument(
        "--threads",
        type=whole(1, 1024),
        metavar="N",
        help="CPU threads (default: as many as cores are idle, or OMP_NUM_THREADS)",
    )
    parser.add_argument(
        "--method",
        default="eraseanything",
        metavar="NAME",
        help="how to erase (default eraseanything); `eraseanything methods` lists all",
    )
    parser.add_argument(
        "--preset",
        default="",
        choices=PRESETS,
        metavar="NAME",
        help=f"settings to start from: {', '.join(PRESETS)} (default: what suits the model best)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings of any method, e.g. --method esd-x --set lr=2e-4 steps=50",
    )
    add_settings(parser, TrainSettings)


def _add_source(source: Any) -> None:
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
    source.add_argument(
        "--extend",
        type=Path,
        metavar="FILE.safetensors",
        help="an eraser of train to start from; what it erases stays erased, too",
    )
    add_source(source)


def run(args: argparse.Namespace) -> int:
    from ..methods.base import find_method
    from ..training.run_folder import remove_checkpoints

    method = find_method(args.method)
    if _used_again(args, method):
        return 0
    check_out(args, [args.out], ".safetensors")
    if args.chart:
        check_out(args, [args.chart], ".png")
    if args.resume:
        refuse_settings(args, TrainSettings)
        if args.pictures:
            raise EraseError("A checkpoint holds its own pictures; leave --pictures out.")
        if args.extend:
            raise EraseError("A checkpoint knows what it extends; leave --extend out.")
    if not method.is_run:
        _refuse_options_of_runs(args, method)
    if method.made == "guard":
        raise EraseError(
            f"{method.name} is a guard and trains nothing; make one with the command guard."
        )
    if method.made == "as it is":
        raise EraseError(f"{method.name} changes nothing, so there is no file; choose another.")
    folder = _run_folder(args)
    model = open_model(args, placed=method.forward and not method.is_run)
    if model.family.notice:
        warn(model.family.notice)
    with together(args, _order(args, model, method, folder)) as order:
        erased = erase_and_save(args, model, order, args.out)
    if args.chart and erased.result.history:
        from ..pictures import loss_chart

        chart = loss_chart(erased.result.history, title=title(erased.concepts))
        save_picture(args.chart, chart)
    if erased.result.stopped == "done" and not (args.checkpoints or args.resume):
        remove_checkpoints(folder)
    return _report(args, erased, folder)


def _used_again(args: argparse.Namespace, method: Method) -> bool:
    """Whether --out is there, made before from this very order; says so."""
    from ..methods.again import day_made
    from ..tensors import read_metadata

    told = args.overwrite or args.resume or args.pictures or args.chart
    if told or read_metadata(args.out).get("erase.method") != method.name:
        return False
    model = open_model(args, placed=False)
    order = _order(args, model, method, Path())
    assert order.concepts is not None
    concepts, earlier = order.concepts, order.earlier
    settings = method.suited(model, concepts, order.preset, order.changes, earlier)
    day = day_made(args.out, model, method, concepts, settings, order.seed, earlier)
    if day:
        result = {"lora": str(args.out), "stopped": "done", "made": day}
        say(args, result, f"{args.out} was made so on {day} and stays; --overwrite makes it anew.")
    return bool(day)


def _refuse_options_of_runs(args: argparse.Namespace, method: Method) -> None:
    """Refuse what a method would not look at."""
    names = ("resume", "checkpoints", "chart", "pictures")
    told = [f"--{name}" for name in names if getattr(args, name)]
    told += ["--memory"] * (args.memory != "auto") + ["--cards"] * (args.cards > 1)
    if told:
        raise EraseError(f"{method.label} knows no {told[0]}; leave it out.")


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


def _order(args: argparse.Namespace, model: Model, method: Method, folder: Path) -> Order:
    """What the command line asks for."""
    from ..api import Order
    from ..erasers.earlier import Earlier
    from ..methods.base import Folders
    from ..tensors import read_tensors
    from ..training.encoding import cache_folder

    if args.resume:
        steps = {} if args.steps is None else {"steps": args.steps}
        return Order(method=method.name, changes=steps, folders=Folders(resume=args.resume))
    concepts, changes, earlier = find_concepts(args), _changes(args, method), None
    if args.extend:
        earlier = Earlier.read(*read_tensors(args.extend), str(args.extend), model, method.name)
        concepts = earlier.growing_by(concepts)
    seed = changes.pop("seed", args.seed or 0)
    check("seed", seed, TrainSettings.about()["seed"])
    settings = method.suited(
        model, concepts, args.preset, changes, earlier
    )  # what cannot be is told now
    pictures = None
    if args.pictures:
        size = (settings.height, settings.width)
        pictures = read_keep_pictures(args.pictures, require_vae(model), size)
    return Order(
        concepts,
        method.name,
        args.preset,
        changes,
        seed,
        pictures,
        Folders(folder, args.overwrite and not args.checkpoints, states=cache_folder()),
        earlier,
    )


def _changes(args: argparse.Namespace, method: Method) -> dict[str, Any]:
    """The settings that are told: by options of their own for ours, by ``--set`` for any method."""
    from ..settings import read_pairs

    told = given(args, TrainSettings)
    told.pop("seed", None)
    if method.settings is not TrainSettings:
        if told or args.pictures:
            raise EraseError(
                f"{method.label} has settings of its own; tell them with --set, as "
                f"`eraseanything methods --settings {method.name}` lists them."
            )
        return read_pairs(method.settings, args.set)
    return told | read_pairs(method.settings, args.set)


def find_concepts(args: argparse.Namespace) -> ConceptSet:
    """What ``--concepts`` or ``--concept`` names, with its words."""
    from ..concepts.sets import ConceptSet
    from ..evaluate.judges.recogniser import RecogniserJudge

    if args.concepts or args.model == MINIFLUX:
        for name in ("sense", "kind"):
            if getattr(args, name):
                which = args.concepts or "MiniFlux"
                raise EraseError(f"{which} has its own meanings of words; leave --{name} out.")
    if args.concepts:
        return ConceptSet.load(args.concepts)
    if args.model == MINIFLUX:
        return ConceptSet.together(map(RecogniserJudge.concept, args.concept))
    return look_up(args.concept, args)


def erase_and_save(
    args: argparse.Namespace,
    model: Model,
    order: Order,
    out: Path,
    *,
    place: Callable[[Run], Kept] | None = None,
    on_step: Callable[[Progress], None] | None = None,
    on_ready: Callable[[Ready], None] = lambda ready: None,
) -> Erased:
    """Erase as ordered; signals end the run after its current step, and whatever goes wrong, the
    work done so far is in a file that the sentence names.

    Without ``place`` room is found within ``--memory``, and what the run will take is told."""
    from functools import partial

    from .. import api
    from ..methods.base import find_method
    from ..training.memory import settle

    def encoding(work: Work) -> None:
        if not args.json:
            fewer = "; fewer with --set prompts=12 kept=1" if work.seconds > LONG else ""
            tell(f"{str(work)[0].upper()}{str(work)[1:]}{fewer}.")

    runs: list[Run] = []

    def ready(found: Ready) -> None:
        runs.append(found.run)
        on_ready(found)
        _tell_notices(runs)
        if not args.json and place is None:
            tell(f"Training takes {found.expected}; {found.kept}.")

    with stopping(told=TOLD if find_method(order.method).is_run else STOPPING) as stop:
        try:
            return api.erase(
                model,
                order,
                out,
                place=place or partial(settle, budget=budget(args)),
                threads=getattr(args, "threads", None) or 0,
                on_ready=ready,
                on_encode=encoding,
                on_step=stop.listening(on_step or Bar()),
            )
        except api.UnfinishedError as error:
            if error.path is None:
                raise error.cause from None
            reason = sentence(error.cause).rstrip(".")
            raise EraseError(f"{reason}. The work so far is in {error.path}.") from error.cause
        finally:
            _tell_notices(runs)


def _tell_notices(runs: Iterable[Run]) -> None:
    for run in runs:
        while run.notices:
            warn(run.notices.pop(0))


def title(concepts: ConceptSet) -> str:
    """What a chart is called."""
    return "Erasing " + ", ".join(f"“{concept.name}”" for concept in concepts.concepts)


def _report(args: argparse.Namespace, erased: Erased, folder: Path) -> int:
    from ..training.run_folder import checkpoints

    result, kept = erased.result, checkpoints(folder)
    seconds = sum(result.seconds.values())
    say(
        args,
        {
            "lora": str(erased.path) if erased.path else None,
            "stopped": result.stopped,
            "steps": len(result.history),
            "losses": result.history[-1] if result.history else {},
            "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
            **({"measured": dict(result.measured)} if result.measured else {}),
        },
        stopped_sentence(result, erased.path, seconds),
        *(
            f"The LoRA misses {100 * missed:.2g} % of the change of {name}."
            for name, missed in result.measured.items()
        ),
        *([f"Checkpoints are in {folder}; --resume {folder} goes on."] if kept else []),
    )
    return exit_code(result)


def exit_code(result: Result) -> int:
    """0 done, 1 diverged, 130 cancelled."""
    return {"done": 0, "diverged": FAILED, "cancelled": CANCELLED}[result.stopped]


def stopped_sentence(result: Result, path: Path | None, seconds: float) -> str:
    """How a run ended, and where its file is."""
    steps = len(result.history)
    if path is None:
        return "Stopped before the first iteration; nothing was written."
    if result.stopped == "cancelled":
        return f"Cancelled after {steps} iterations; the partial LoRA is in {path}."
    if result.stopped == "diverged":
        return result.diverged(path)
    done = f"{steps} iterations" if steps else "made"
    return f"{path}: {done} in {clock(seconds)}."
