"""Which model a command works with: the bundled MiniFlux, or the user's files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EraseError
from .numbers import HIGHEST_SEED, SIDE, STEPS, real, whole
from .output import warn

if TYPE_CHECKING:
    from ..erasers.base import Eraser
    from ..models.base import VAE, Conditioning, Model
    from ..models.files import Files

MINIFLUX = "miniflux"
# What may be told of a model's files, and the part that it is of.
FILES = {name: name for name in ("clip_l", "clip_g", "t5", "qwen", "vae", "tokenizers")}
FILES["t5_length"] = "t5"


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model`` and the files beside it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=MINIFLUX,
        metavar="miniflux|FILE",
        help="the bundled MiniFlux (default), a FLUX.1, FLUX.2 klein, Z-Image, Qwen-Image, SD3.5 "
        "or Chroma transformer (.safetensors, bf16 or fp8), or diffusers' folder of one. Such a "
        "folder has the files below",
    )
    files = {
        "--clip-l": "CLIP-L text encoder for a FLUX.1 or SD3.5 FILE, or its folder",
        "--clip-g": "CLIP-G text encoder for an SD3.5 FILE, or its folder",
        "--t5": "T5-XXL text encoder for a FLUX.1, SD3.5 or Chroma FILE, or its folder",
        "--qwen": "Qwen3 text encoder for a FLUX.2 klein or Z-Image FILE, Qwen2.5-VL for a "
        "Qwen-Image FILE, or its folder",
        "--vae": "VAE for a FILE, or its folder",
    }
    for flag, what in files.items():
        group.add_argument(flag, type=Path, metavar="FILE", help=what)
    group.add_argument(
        "--tokenizers",
        type=Path,
        metavar="DIR",
        help="folder with the tokenizers, named as in diffusers' folders. Without it: "
        "those of --model, if that is a folder, of the ComfyUI at COMFYUI_PATH, or downloaded from "
        "Hugging Face once",
    )
    group.add_argument(
        "--t5-length",
        type=whole(1, 4096),
        metavar="N",
        help="T5 tokens a prompt (default 256)",
    )
    add_device(group)


def add_device(parser: Any) -> None:
    """``--device`` and ``--deterministic``."""
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: the best there is)")
    parser.add_argument(
        "--deterministic", action="store_true", help="repeat exactly on CUDA too, slower"
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """``--memory``: how much of the device a command may take."""
    parser.add_argument(
        "--memory",
        type=_gigabytes,
        default="auto",
        metavar="auto|GB",
        help="size of the card to fit into, e.g. 80, 24, 16 or 12 (default auto: what is free). "
        "Each step costs time: training recomputes activations, the base becomes fp8, blocks stay "
        "in main memory",
    )


def _gigabytes(text: str) -> float | str:
    """A positive number, or "auto"."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no size; write auto, or gigabytes such as 24")
    return value


def budget(args: argparse.Namespace) -> float | None:
    """Bytes of the device that may be taken; None for what is free."""
    return None if args.memory == "auto" else args.memory * 1e9


def settle_to_draw(
    args: argparse.Namespace, model: Model, size: tuple[int, int], *, probed: bool = False
) -> int:
    """Bring a model opened with ``placed=False`` to the device, within ``--memory``; returns how
    many pictures of ``size`` can be drawn at once."""
    from ..training.memory import fit_to_draw, free_bytes

    room = budget(args)
    room = free_bytes(model.device) if room is None else room
    return fit_to_draw(model, size, room, probed=probed)[1]


def ready_to_draw(
    args: argparse.Namespace, prompt: str, *, probed: bool = False, guards: Iterable[Path] = ()
) -> tuple[Model, Conditioning, Eraser | None]:
    """The model that ``args`` name, in place to draw a picture of ``prompt``, encoded, and the
    eraser to draw it with.

    ``probed``: its attention is looked at, too. ``guards`` act from first to last.
    """
    from ..erasers.guards.base import Guard
    from ..models.base import under

    model = open_model(args, placed=False)
    require_vae(model)
    eraser = open_eraser(args, model)
    with under(model.text, eraser):
        cond = model.text.encode([prompt])
    if args.negative is not None:
        if not model.family.negative:
            raise EraseError(
                f"{model.family.label} draws without a negative prompt; leave --negative out."
            )
        cond = replace(cond, negative=model.text.encode([args.negative]))
    for path in guards:
        model = Guard.load(path).wrap(model)
    model.text.release()
    settle_to_draw(args, model, args.size or model.size, probed=probed)
    return model, cond, eraser


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """What generation needs to know beside the prompt."""
    parser.add_argument(
        "--seed", type=whole(0, HIGHEST_SEED), default=0, help="seed of the noise (default 0)"
    )
    parser.add_argument(
        "--steps",
        type=whole(1, STEPS),
        help="Euler steps (default: the model's, 28, of Chroma 30, of distilled models 4 or 8)",
    )
    parser.add_argument(
        "--guidance",
        type=real(0, 100),
        help="default: the model's, of FLUX.1 3.5, of Chroma, FLUX.2 klein, Z-Image, "
        "Qwen-Image and SD3.5 4, where 1 leaves the negative prompt out",
    )
    parser.add_argument(
        "--negative",
        metavar="PROMPT",
        help="what is drawn away from, by models such as Chroma (default: the empty prompt)",
    )
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="pixels, multiples of 16 (default: the model's)"
    )
    parser.add_argument("--lora", type=Path, metavar="FILE", help="the eraser, or any LoRA")
    parser.add_argument(
        "--strength", type=real(-100, 100), default=1.0, help="of the LoRA (default 1.0)"
    )


def size(text: str) -> tuple[int, int]:
    """ "512x768" as (height, width)."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    sides = [int(side) for side in match.groups()] if match else [0]
    if any(side % 16 or not 16 <= side <= SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text} is no size; write e.g. 512x512, multiples of 16 up to {SIDE}"
        )
    return sides[1], sides[0]


def open_model(args: argparse.Namespace, *, placed: bool = True) -> Model:
    """The model that ``args`` name, ready to draw.

    Without ``placed`` the transformer stays in main memory until somebody finds room for it.
    """
    from .. import api

    source = None if args.model == MINIFLUX else files(args)
    model = api.open_model(
        source, args.device or "", deterministic=args.deterministic, placed=placed
    )
    known = {"tokenizers", *model.family.parts} if source else set()
    told = {name: getattr(args, name, None) for name in FILES}  # demo has no such options
    idle = [name for name, value in told.items() if value and FILES[name] not in known]
    if idle:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in idle)
        warn(f"{model.name} does not look at {flags}; leave that out.")
    return model


def bundled_file() -> Path:
    """The bundled MiniFlux's transformer."""
    from .. import api

    return api.open_model(placed=False).file or Path()


def files(args: argparse.Namespace) -> Files:
    """The files that ``args`` name."""
    from ..models.files import Files

    return Files(
        Path(args.model),
        args.clip_l,
        args.t5,
        args.vae,
        args.tokenizers,
        args.t5_length or Files.t5_length,
        args.qwen,
        args.clip_g,
    )


def require_vae(model: Model) -> VAE:
    """The model's autoencoder; EraseError without one."""
    if model.vae is None:
        raise EraseError("A picture needs an autoencoder; name one with --vae.")
    return model.vae


def open_eraser(args: argparse.Namespace, model: Model) -> Eraser | None:
    """``--lora`` at ``--strength`` on the model's device, or None."""
    from ..erasers.load import load

    return load(args.lora, model).scaled(args.strength) if args.lora else None
